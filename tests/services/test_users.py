"""People as rows: the administrators' list, names to assign to, and what an erased account shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from models import User
from models.user import AccountStatus
from scheduler.accounts.names import folded
from scheduler.accounts.users import get_user, list_users, look_up, shown_status
from scheduler.database import Database
from scheduler.errors import BadCursor, NotFound
from scheduler.paging import Page
from tests.factories import NOW, People, add_rows, user_row
from tests.services.stored import set_, statements

Listing = Callable[..., Awaitable[Page[Any]]]


async def listed(database: Database, *, limit: int = 50, **filters: Any) -> list[str]:
    async with database.read() as session:
        return [row.name for row in (await list_users(session, limit=limit, **filters)).items]


async def found(database: Database, q: str, *, limit: int = 50) -> list[str]:
    async with database.read() as session:
        return [row.name for row in (await look_up(session, q=q, limit=limit)).items]


async def pages(database: Database, listing: Listing, **options: Any) -> list[UUID]:
    """All of a list, three at a time."""
    ids: list[UUID] = []
    cursor = None
    while True:
        async with database.read() as session:
            page = await listing(session, limit=3, cursor=cursor, **options)
        assert len(page.items) <= 3
        ids += [row.id for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids


def named(number: int, name: str) -> dict[str, Any]:
    return user_row(f"p{number}") | {"name": name, "name_folded": folded(name)}


@pytest.mark.parametrize("status", AccountStatus)
def test_to_clients_whatever_is_not_active_is_deactivated(status: AccountStatus) -> None:
    assert shown_status(status.value) == ("active" if status is AccountStatus.ACTIVE else "deactivated")


async def test_names_are_found_by_any_part_without_regard_to_case_accents_and_width(database: Database) -> None:
    names = ("Åsa Öberg", "asa oberg", "Jürgen Straßer", "李小龍", "Ｗｉｄｅ", "100% Anna_", "O'Neil")
    await add_rows(database, User, [named(number, name) for number, name in enumerate(names)])
    for q, wanted in (
        ("ASA", ["Åsa Öberg", "asa oberg"]),
        ("öBERG", ["Åsa Öberg", "asa oberg"]),
        ("strasse", ["Jürgen Straßer"]),
        ("小", ["李小龍"]),
        ("wide", ["Ｗｉｄｅ"]),
        ("0%", ["100% Anna_"]),
        ("%", ["100% Anna_"]),
        ("_", ["100% Anna_"]),
        ("o'n", ["O'Neil"]),
        (" anna ", ["100% Anna_"]),
        ("\u0301", []),  # an accent alone folds to nothing, which everybody has
        ("nobody", []),
    ):
        assert sorted(await found(database, q)) == sorted(wanted), q
        assert sorted(await listed(database, q=q)) == sorted(wanted), q
    assert len(await found(database, "")) == len(await found(database, "   ")) == 7


async def test_a_page_of_names_is_in_their_order_and_shows_no_more_than_names(database: Database) -> None:
    rows = [named(number, f"Person {'äa'[number % 2]}{number % 4}") for number in range(10)]
    await add_rows(database, User, rows)
    in_order = sorted(rows, key=lambda row: (row["name_folded"], row["id"].bytes))
    assert await pages(database, look_up) == [row["id"] for row in in_order]
    assert await pages(database, look_up, q="A1") == [row["id"] for row in in_order if "a1" in row["name_folded"]]
    async with database.read() as session:
        page = await look_up(session, limit=1, count=True)
        assert page.total == 10
        assert set(page.items[0]._fields) == {"id", "name", "avatar_key", "name_folded"}
        with pytest.raises(BadCursor):
            await look_up(session, limit=1, cursor="nonsense")


async def test_the_list_is_newest_first_and_filtered_by_what_clients_see(database: Database, people: People) -> None:
    for person, status in ((people.bob, "deactivated"), (people.carol, "deleting"), (people.dora, "erased")):
        await set_(database, User, person.user_id, status=status)
    assert await listed(database) == ["Eve", "Carol", "Bob", "Alice"]
    assert await listed(database, statuses=["deactivated"]) == ["Carol", "Bob"]
    assert await listed(database, statuses=["active"], roles=["user", "manager"]) == ["Alice"]
    assert await listed(database, statuses=["active", "deactivated"]) == ["Eve", "Carol", "Bob", "Alice"]
    assert await listed(database, q="ALICE@example") == ["Alice"]
    assert await pages(database, list_users) == [
        each.user_id for each in (people.eve, people.carol, people.bob, people.alice)
    ]
    async with database.read() as session:
        assert (await list_users(session, limit=1, count=True)).total == 4
    # Only who is active can be assigned.
    assert await found(database, "") == ["Alice", "Eve"]


async def test_an_erased_account_is_not_there(database: Database, people: People) -> None:
    await set_(database, User, people.bob.user_id, status="erased")
    async with database.write() as session:
        assert (await get_user(session, user_id=people.alice.user_id)).name == "Alice"
        for for_update in (False, True):
            with pytest.raises(NotFound):
                await get_user(session, user_id=people.bob.user_id, for_update=for_update)


async def test_a_row_holds_nothing_that_signs_in(database: Database, people: People) -> None:
    async with database.read() as session:
        row = await get_user(session, user_id=people.alice.user_id)
        listed_row = (await list_users(session, limit=1)).items[0]
    assert not {"password_hash", "totp_secret", "totp_last_step"} & {*row._fields, *listed_row._fields}


async def test_a_page_costs_one_statement_whatever_its_length(database: Database) -> None:
    await add_rows(database, User, [user_row(f"p{number}", at=NOW + timedelta(0, number)) for number in range(60)])
    for listing in (list_users, look_up):
        for limit in (1, 50):
            with statements(database) as seen:
                async with database.read() as session:
                    await listing(session, q="p", limit=limit)
            assert sum(statement.startswith("SELECT") for statement in seen) == 1
