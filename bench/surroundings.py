"""What every benchmark stands on: private MariaDB (synced at each commit), private Redis, the SMTP sink."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from bench.sink import SinkProcess
from scheduler.schema import upgrade
from tests.servers import MariaDBServer, RedisServer

DATABASE = "punctual_bench"


@dataclass(frozen=True)
class Surroundings:
    """Running servers and a migrated database."""

    mariadb: MariaDBServer
    redis: RedisServer
    sink: SinkProcess

    @property
    def database_url(self) -> str:
        """As `Settings.database_url` has it."""
        return self.mariadb.url(DATABASE, "mysql+aiomysql")


@contextlib.contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Start everything, and end it with the block."""
    mariadb = MariaDBServer(flush_log_at_trx_commit=1, buffer_pool_mb=1024, log_file_mb=512)
    with mariadb, RedisServer() as redis, SinkProcess() as sink:
        mariadb.create_database(DATABASE)
        upgrade(mariadb.url(DATABASE, "mysql+aiomysql"))
        yield Surroundings(mariadb, redis, sink)
