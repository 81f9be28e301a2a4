"""What stands in a person's export, held to the declared schema: nothing about people is forgotten, no secret told."""

from __future__ import annotations

import re

from sqlalchemy import Table

from models import Base
from models.types import Digest
from scheduler.accounts.export_contents import NOT_ABOUT_PEOPLE, SECTIONS, TOLD_IN_FULL

SECRETS = re.compile(
    r"password|secret|digest|hash|token|totp_last|fingerprint|_key$|^headers$|^body$|^message$|^worker$"
)
NO_SECRETS = {"email.message_id", "run.retry_of"}


def exported() -> set[str]:
    """`table.column` of all that is exported."""
    found = set()
    for section in SECTIONS:
        for column in section.columns:
            (base,) = column.base_columns
            assert isinstance(base.table, Table)
            found.add(f"{base.table.name}.{base.name}")
    return found


def test_every_table_is_exported_or_not_about_people() -> None:
    tables = {name.partition(".")[0] for name in exported()}
    assert tables.isdisjoint(NOT_ABOUT_PEOPLE)
    assert tables | set(NOT_ABOUT_PEOPLE) == set(Base.metadata.tables)


def test_every_column_is_exported_or_withheld_by_name() -> None:
    """So that a new column must be thought about; a new secret, twice."""
    withheld = {
        f"{section.source.name}.{name}"
        for section in SECTIONS
        if isinstance(section.source, Table)
        for name in section.withheld
    }
    columns = {f"{table.name}.{column.name}" for table in Base.metadata.tables.values() for column in table.columns}
    about_people = {name for name in columns if name.partition(".")[0] not in NOT_ABOUT_PEOPLE}
    assert about_people <= exported() | withheld
    assert withheld <= columns


def test_no_secret_is_exported() -> None:
    told = {name for name in exported() if SECRETS.search(name.partition(".")[2])} - NO_SECRETS
    assert told == set()
    for name in exported():
        table, _, column = name.partition(".")
        assert not isinstance(Base.metadata.tables[table].c[column].type, Digest), name


def test_no_link_that_works_without_a_session_is_exported() -> None:
    links = {"verify_email", "reset_password", "change_email", "invitation", "reminder", "missed_reminders"}
    assert links.isdisjoint(TOLD_IN_FULL)


def test_names_are_of_files_and_once() -> None:
    names = [section.name for section in SECTIONS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z_]+", name) for name in names)
    for section in SECTIONS:
        keys = [column.key for column in section.columns]
        assert len(set(keys)) == len(keys), section.name
