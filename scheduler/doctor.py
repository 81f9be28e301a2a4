"""`punctual doctor`: every setting, connection, the schema's version and the clock, a line each."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import make_url, text

from scheduler import schema
from scheduler.accounts.two_factor import count_secrets
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.mail.transport import MailError, open_transport
from scheduler.processes.embedded_redis import running_socket
from scheduler.processes.folder_lock import holder
from scheduler.processes.redis_program import OLDEST_VERSION, RedisStartError, find_server
from scheduler.processes.start_errors import one_line
from scheduler.redis_client import redis_client
from scheduler.settings import Settings
from scheduler.sms.gateway import SmsFailed, open_gateway
from scheduler.storage import Storage, StorageAway

CLOCK_TOLERANCE_SECONDS = 2.0
"""How far the database's clock and ours may stand apart: a reminder may be a second late, not more."""

_SECRET_SETTINGS = {"secret_keys", "metrics_token"}
_ENVIRONMENT_NAMES = {"secret_keys": "PUNCTUAL_SECRET_KEY"}

Say = Callable[[str], object]


class _Wrong(Exception):
    """A check found something wrong; the message is one line."""


async def examine(settings: Settings, *, say: Say) -> bool:
    """Print a line a check and return whether all is well."""
    for name in type(settings).model_fields:
        say(f"ok     {_ENVIRONMENT_NAMES.get(name, 'PUNCTUAL_' + name.upper())} = {masked(settings, name)}")
    checks: list[tuple[str, Callable[[Settings], Awaitable[str]]]] = [
        ("database", _check_database),
        ("schema", _check_schema),
        ("redis", _check_redis),
        ("mail", _check_mail),
        ("storage", _check_storage),
        ("sms", _check_sms),
        ("keys", _check_keys),
        ("clock", _check_clock),
        ("time zones", _check_time_zones),
    ]
    well = True
    for name, check in checks:
        try:
            say(f"ok     {name:<10} {await check(settings)}")
        except Exception as error:
            well = False
            line = str(error) if isinstance(error, _Wrong) else one_line(error)
            say(f"WRONG  {name:<10} {line or f'{type(error).__name__}: {error}'}")
    return well


def masked(settings: Settings, name: str) -> str:
    """The value of a setting, without what must not be seen on a screen."""
    value = getattr(settings, name)
    if value in (None, "", ()):
        return "(not set)"
    if name == "secret_keys":
        return f"({len(value)} kept secret)"
    if name in _SECRET_SETTINGS:
        return "(set, kept secret)"
    if isinstance(value, tuple):
        return ", ".join(value)
    # The password of a URL, and what its query may hold.
    hidden = re.sub(r"(?<=://)([^/@:\s]*):.*(?=@)", r"\1:***", str(value))
    return re.sub(r"(?i)([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", r"\1***", hidden)


async def _with_database(settings: Settings, statement: str) -> object:
    database = Database(settings.database_url)
    try:
        async with database.read() as session:
            return (await session.execute(text(statement))).scalar_one()
    finally:
        await database.dispose()


def _is_mysql(settings: Settings) -> bool:
    return settings.database_url.startswith("mysql")


async def _check_database(settings: Settings) -> str:
    began = time.perf_counter()
    if not _is_mysql(settings):
        _need_file(settings)
        library = await _with_database(settings, "SELECT sqlite_version()")
        return f"SQLite {library}, {_elapsed(began)}"
    server = str(await _with_database(settings, "SELECT VERSION()"))
    maria = "mariadb" in server.lower()
    numbers = re.findall(r"\d+", server.removeprefix("5.5.5-"))
    found = (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else (0, 0)
    if found < ((10, 6) if maria else (8, 0)):
        raise _Wrong(f"{server} is too old; MariaDB 10.6 or MySQL 8 is needed")
    return f"{'MariaDB' if maria else 'MySQL'} {server}, {_elapsed(began)}"


def _need_file(settings: Settings) -> None:
    """SQLite would make an empty file of a name that is not there, and that would look like a database."""
    path = make_url(settings.database_url).database or ""
    if not Path(path).exists():
        raise _Wrong(f"there is no {path} yet: run punctual migrate (punctual up does)")


async def _check_schema(settings: Settings) -> str:
    if not _is_mysql(settings):
        _need_file(settings)
    database, wanted = Database(settings.database_url), schema.head()
    try:
        async with database.engine.connect() as connection:
            present = await connection.run_sync(schema.current)
    finally:
        await database.dispose()
    if present != wanted:
        raise _Wrong(f"is at {present or 'nothing'}, this version needs {wanted}: run punctual migrate")
    return f"version {present}"


async def _check_redis(settings: Settings) -> str:
    if settings.redis_url is None:
        return _check_embedded_redis(settings)
    began = time.perf_counter()
    client = redis_client(settings.redis_url, timeout_s=5)
    try:
        server = str((await client.info("server")).get("redis_version", "?"))
    finally:
        await client.aclose()
    if tuple(int(part) for part in re.findall(r"\d+", server)[:2]) < OLDEST_VERSION:
        raise _Wrong(f"{server} is too old; Redis 6.2 or later is needed")
    return f"Redis {server}, {_elapsed(began)}"


def _check_embedded_redis(settings: Settings) -> str:
    try:
        program = find_server()
    except RedisStartError as error:
        raise _Wrong(str(error)) from None
    pid = holder(settings.data_dir)
    if pid is None:
        return f"embedded ({program}); not running, which is fine: punctual up starts it"
    if running_socket(settings.data_dir) is None:
        raise _Wrong(f"embedded; punctual up runs (process {pid}), but its Redis does not answer")
    return f"embedded ({program}), run by punctual up (process {pid})"


async def _check_mail(settings: Settings) -> str:
    try:
        transport = open_transport(settings.mail_url, data_dir=settings.data_dir)
    except ValueError as error:
        raise _Wrong(f"PUNCTUAL_MAIL_URL: {error}") from None
    try:
        await transport.check()
        return transport.description
    except MailError as error:
        raise _Wrong(f"PUNCTUAL_MAIL_URL: {transport.description}: {error}") from None
    finally:
        await transport.close()


async def _check_sms(settings: Settings) -> str:
    gateway = open_gateway(settings)
    if gateway is None:
        return "none is set, so telephone numbers can't be confirmed"
    try:
        await gateway.check(settings=settings)
    except SmsFailed as error:
        raise _Wrong(f"PUNCTUAL_SMS_URL: {error}") from None
    return f"{gateway.host}, {'without' if gateway.is_plain else 'over'} TLS"


async def _check_keys(settings: Settings) -> str:
    """Whether every secret of two-factor sign-in can be read, and when an old key may go."""
    if not _is_mysql(settings):
        _need_file(settings)
    database = Database(settings.database_url)
    try:
        async with database.read() as session:
            found = await count_secrets(session, encryption=Encryption(settings.secret_keys))
    finally:
        await database.dispose()
    if found.unreadable:
        raise _Wrong(
            f"PUNCTUAL_SECRET_KEY: {found.unreadable} of {found.all} secrets of two-factor sign-in are encrypted with "
            "a key that is not in the list; put it back, at the end"
        )
    if found.outdated:
        return (
            f"{found.all} secrets of two-factor sign-in, {found.outdated} of them encrypted with an older key: keep it "
            "until their owners have signed in"
        )
    return f"{found.all} secrets of two-factor sign-in, all encrypted with the newest key"


async def _check_storage(settings: Settings) -> str:
    began = time.perf_counter()
    storage = Storage(settings.storage_url, settings.data_dir)
    try:
        await storage.check()
    except StorageAway as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise _Wrong(f"PUNCTUAL_STORAGE_URL: {storage.description}: {reason}") from None
    finally:
        storage.close()
    return f"{storage.description}, {_elapsed(began)}"


async def _check_clock(settings: Settings) -> str:
    if not _is_mysql(settings):
        # The database is a file, its clock is ours; only whether that makes sense can be asked.
        year = datetime.now(UTC).year
        if not 2025 <= year < 2200:
            raise _Wrong(f"says that it is the year {year}; set the clock of this machine")
        return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    before = time.time()
    theirs = float(str(await _with_database(settings, "SELECT UNIX_TIMESTAMP(NOW(6))")))
    # Their answer was made at some moment between our question and its arrival.
    apart = max(before - theirs, theirs - time.time(), 0.0)
    if apart > CLOCK_TOLERANCE_SECONDS:
        raise _Wrong(f"the database's clock and ours are {apart:.1f} s apart; synchronise both (NTP)")
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, the database agrees to {apart:.1f} s"


async def _check_time_zones(settings: Settings) -> str:
    try:
        offset = datetime(2026, 1, 1, tzinfo=ZoneInfo("Pacific/Kiritimati")).utcoffset()
    except ZoneInfoNotFoundError:
        raise _Wrong("no time zone data; install the tzdata package") from None
    if offset is None or offset.total_seconds() != 14 * 3600:
        raise _Wrong("the time zone data is damaged; install the tzdata package anew")
    return f"IANA data is there (package tzdata {version('tzdata')})"


def _elapsed(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.0f} ms"
