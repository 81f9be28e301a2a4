"""The database: one engine a process, and transactions that say whether they mean to write."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar, cast
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import CursorResult, Result, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from scheduler.mysql import open_connection

Outcome = TypeVar("Outcome")

STATEMENT_TIMEOUT_S = 10
TRANSACTION_TIMEOUT_S = 20
"""From asking for a connection to the commit, on our own clock."""
LOCK_WAIT_S = 8
"""Below the statement's time-out, so that a lock that is not had shows as 1205, which is retried, and not as
a hang."""
CONNECT_TIMEOUT_S = 5
RETRIES = 4
AFTER_COMMIT = "after_commit"
"""In `session.info`: a list of functions to call once the transaction is committed; a rollback forgets them."""
WAKE_WORKERS = "wake_workers"
"""In `session.info`: set by whatever leaves runs to dispatch."""
REVOKED = "revoked_users"
"""In `session.info`: the ids of those whose requests are judged otherwise from the commit on."""
SQLITE_BUSY_S = 8
_DEADLOCK_OR_LOCK_WAIT = {1205, 1213}


class DatabaseTimeout(TimeoutError):
    """The database did not end a transaction in time; try again."""


class Database:
    """An engine for one URL (`sqlite+aiosqlite:///…`, `mysql+aiomysql://…`); `read()` and `write()` are its
    transactions."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = make_url(url)
        self.is_mysql = self.url.get_backend_name() == "mysql"
        self.engine = _mysql_engine(url, pool_size) if self.is_mysql else _sqlite_engine(url, pool_size)
        self.wake_workers: Callable[[], None] | None = None
        """Called after each commit that leaves runs to dispatch; the process's door sets it. Must not block."""
        self.tell_revoked: Callable[[Collection[UUID]], Awaitable[None]] | None = None
        """Waited for after each commit by which what is remembered of people's sign-ins is void; the process's door
        sets it. Must not raise."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A transaction that only reads; it never waits for a writer."""
        async with self._transaction("BEGIN") as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that commits when the block ends and rolls back when it raises.

        On SQLite it is BEGIN IMMEDIATE: the writer's lock is taken (and waited for) at the start, as a
        transaction that reads first and writes later can't wait for it without a chance of SQLITE_BUSY.
        """
        async with self._transaction("BEGIN IMMEDIATE") as session:
            yield session

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[AsyncSession]:
        limit = asyncio.timeout(TRANSACTION_TIMEOUT_S)
        revoked: Collection[UUID] = ()
        try:
            # A server's own time-outs are no help when the network has swallowed the connection.
            async with limit, self._turn(begin), self.engine.connect() as connection:
                if not self.is_mysql:
                    await connection.execution_options(sqlite_begin=begin)
                async with (
                    AsyncSession(bind=connection, expire_on_commit=False, autoflush=False) as session,
                    session.begin(),
                ):
                    yield session
                    # From here on it may be committed, whatever we hear of it.
                    revoked = session.info.get(REVOKED, ())
                self._committed(session)
        except TimeoutError:
            # The others of the pool may be as dead as this one, and each would cost as long to find out.
            await self.engine.dispose(close=False)
            if limit.expired():
                raise DatabaseTimeout() from None
            raise
        finally:
            # Neither the connection nor the turn to write is held meanwhile.
            if revoked and self.tell_revoked is not None:
                await self.tell_revoked(revoked)

    def _turn(self, begin: str) -> AbstractAsyncContextManager[None]:
        """To write to a SQLite file: one at a time in a process.

        SQLite's own wait for the writer's lock holds a mutex of its connection, and whatever frees a cursor of that
        connection waits for the mutex: the garbage collector does, in the thread of the loop. There it would hold up
        the very writer that is waited for, until the wait is over and everybody fails with "database is locked".
        """
        if self.is_mysql or begin == "BEGIN":
            return nullcontext()
        locks = _WRITING.setdefault(asyncio.get_running_loop(), {})
        return cast(AbstractAsyncContextManager[None], locks.setdefault(str(self.url.database), asyncio.Lock()))

    def _committed(self, session: AsyncSession) -> None:
        """Do what was to be done once it is committed (a rollback never comes here)."""
        calls: list[Callable[[], None]] = session.info.get(AFTER_COMMIT, [])
        for call in calls:
            call()
        if session.info.get(WAKE_WORKERS) and self.wake_workers is not None:
            self.wake_workers()

    async def retry_write(self, work: Callable[[AsyncSession], Awaitable[Outcome]]) -> Outcome:
        """Run `work` in a write transaction, again from its beginning (four times at the most) after a
        deadlock or lock wait."""
        for attempt in range(RETRIES):
            try:
                async with self.write() as session:
                    return await work(session)
            except DBAPIError as error:
                if not is_retryable(error) or attempt == RETRIES - 1:
                    raise
            await asyncio.sleep(random.uniform(0, 0.05 * 2**attempt))  # nosec B311
        raise AssertionError("unreachable")

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


_WRITING: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = WeakKeyDictionary()
"""By loop and file, as a process may have several engines for one file."""


def is_retryable(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is run again: InnoDB's 1205 and 1213, SQLite's
    BUSY."""
    if not isinstance(error, DBAPIError):
        return False
    arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
    return bool(arguments) and (arguments[0] in _DEADLOCK_OR_LOCK_WAIT or "database is locked" in str(arguments[0]))


def is_unavailable(error: BaseException) -> bool:
    """Whether the database is away, was cut off, or did not answer in time (and not: refused what we
    sent)."""
    if isinstance(error, DBAPIError):
        return (
            error.connection_invalidated
            or isinstance(error, OperationalError)
            or error.__class__.__name__ == "InterfaceError"
        )
    return isinstance(error, OSError | TimeoutError | PoolTimeoutError)


def _mysql_engine(url: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url,
        # REPEATABLE READ takes gap locks, with which a claim blocks inserts of new reminders.
        isolation_level="READ COMMITTED",
        hide_parameters=True,  # they would stand in errors, and those in runs and logs
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=STATEMENT_TIMEOUT_S,
        pool_pre_ping=True,
        # Every transaction here ends by its own COMMIT or ROLLBACK (a cancelled one drops its connection), so the
        # pool's ROLLBACK on return would be one more round trip for nothing.
        pool_reset_on_return=None,
        pool_recycle=1800,
        connect_args={
            "async_creator_fn": open_connection,
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "init_command": f"SET SESSION time_zone='+00:00', innodb_lock_wait_timeout={LOCK_WAIT_S}",
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _set_limits(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT VERSION()")
        row = cursor.fetchone()
        if row is not None and "mariadb" in row[0].lower():
            cursor.execute(f"SET SESSION max_statement_time={STATEMENT_TIMEOUT_S}")
        else:
            cursor.execute(f"SET SESSION max_execution_time={STATEMENT_TIMEOUT_S * 1000}")
        cursor.close()

    return engine


def _sqlite_engine(url: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=STATEMENT_TIMEOUT_S,
        connect_args={"timeout": SQLITE_BUSY_S, "isolation_level": None},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        # WAL lets readers go on while one writes; FULL makes a commit outlive a power cut, as the promise
        # needs.
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={SQLITE_BUSY_S * 1000}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "invalidate")
    def _let_go(connection: Any, _: ConnectionPoolEntry, __: BaseException | None) -> None:
        # After a cancelled statement. Closing does not end the transaction while a cursor of it is held somewhere (by
        # the traceback of the cancellation, say), so that nobody could write before the garbage collector came by.
        driver = connection.driver_connection
        with suppress(ValueError):  # closed already
            driver._tx.put_nowait((None, driver._conn.rollback))

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    return engine


def affected(result: Result[Any]) -> int:
    """How many rows an UPDATE or DELETE matched."""
    count: int = cast("CursorResult[Any]", result).rowcount
    return count


async def ping(connection: AsyncConnection) -> None:
    """Ask the database for nothing, to see whether it answers."""
    await connection.exec_driver_sql("SELECT 1")
