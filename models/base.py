"""The declarative base: names of constraints are fixed, so that a migration can drop them on every
database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import DeclarativeBase

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# Comparisons are by code point on every database; what ignores case is folded before it is stored.
MYSQL_OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    __table_args__: Any = MYSQL_OPTIONS

    if TYPE_CHECKING:
        # SQLAlchemy knows it as a FromClause, which could also be a join; ours are tables, for bulk
        # statements.
        __table__: ClassVar[Table]


def table_arguments(*items: Any) -> tuple[Any, ...]:
    """`__table_args__` for a table with indexes or constraints of its own."""
    return (*items, MYSQL_OPTIONS)
