"""Security notices: what, when on the person's clock, from where, and only to addresses that may be written to."""

from __future__ import annotations

from sqlalchemy import select

from models import Email, User
from scheduler.access import Actor
from scheduler.accounts.client import Client
from scheduler.accounts.notices import SecurityEvent, send_security_notice
from scheduler.database import Database
from scheduler.settings import Settings
from tests.factories import NOW, add_person
from tests.services.mailed import mail
from tests.services.stored import count, one, set_


async def tell(
    database: Database,
    person: Actor,
    settings: Settings,
    *,
    event: SecurityEvent = SecurityEvent.API_TOKEN_CREATED,
    client: Client | None = None,
    detail: str = "",
) -> None:
    async with database.write() as session:
        row = (await session.execute(select(User.__table__).where(User.id == person.user_id))).one()
        await send_security_notice(
            session, user=row, event=event, client=client, settings=settings, now=NOW, detail=detail
        )


async def test_what_when_and_from_where(database: Database, settings: Settings) -> None:
    alice = await add_person(database, "alice", timezone="Asia/Kathmandu", locale="de-AT")
    await set_(database, User, alice.user_id, name="Alice <i>")
    client = Client("2001:db8::1", "curl/8.9.1")
    await tell(database, alice, settings, client=client, detail="Its name: <backup & co>")
    stored = await one(database, Email)
    assert (stored.template, stored.recipient, stored.state) == ("security", "alice@example.com", "pending")
    assert stored.user_id == alice.user_id
    sent = await mail(database, "security")
    assert sent.subject == "An API token was made"
    for part in ("Alice <i>", "Its name: <backup & co>", "Mon 2 Mar 2026, 17:45 (Asia/Kathmandu)", "2001:db8::1, curl"):
        assert part in sent.text
    assert "Alice &lt;i&gt;" in sent.html and "&lt;backup &amp; co&gt;" in sent.html


async def test_what_an_administrator_did_says_so(database: Database, settings: Settings) -> None:
    alice = await add_person(database, "alice")
    await tell(database, alice, settings, event=SecurityEvent.ROLE_CHANGED)
    sent = await mail(database, "security")
    assert "the service or one of its administrators" in sent.text
    assert "None" not in sent.text and "unknown" not in sent.text


async def test_an_address_nobody_has_proved_is_left_alone(database: Database, settings: Settings) -> None:
    alice = await add_person(database, "alice")
    strict = settings.model_copy(update={"require_verified_email": True})
    await tell(database, alice, strict)
    await set_(database, User, alice.user_id, email_verified_at=None)
    await tell(database, alice, strict)
    assert await count(database, Email) == 1
    await tell(database, alice, settings)
    assert await count(database, Email) == 2
