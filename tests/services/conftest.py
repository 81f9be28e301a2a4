"""What the tests of the services share: people, keys, a mail server, and the jobs called by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from bench.sink import SinkProcess
from scheduler.accounts.access_tokens import AccessTokens
from scheduler.accounts.client import Client
from scheduler.accounts.passwords import Passwords
from scheduler.accounts.sign_in import Tokens, login
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.errors import Forbidden, Unauthenticated
from scheduler.links import Links
from scheduler.mail.delivery import Transport
from scheduler.mail.maildir import MaildirTransport
from scheduler.mail.transport import open_transport
from scheduler.outbox.send import Sender
from scheduler.reminders.email import ReminderEmails
from scheduler.reminders.fire import Fired
from scheduler.reminders.send import send_reminders
from scheduler.settings import Settings
from tests.factories import NOW, People, add_people


@pytest.fixture
async def people(database: Database) -> People:
    """Alice to Eve, in the database."""
    return await add_people(database)


@pytest.fixture(scope="session")
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(threads=2)
    yield passwords
    passwords.close()


@pytest.fixture
def access_tokens(settings: Settings) -> AccessTokens:
    return AccessTokens(settings.secret_keys)


@pytest.fixture
def encryption(settings: Settings) -> Encryption:
    return Encryption(settings.secret_keys)


PASSWORD = "correct horse battery"
CLIENT = Client("192.0.2.1", "a browser")


@dataclass
class SignIn:
    """The service's way in: called with what a person types, it gives tokens or raises."""

    database: Database
    settings: Settings
    passwords: Passwords
    access_tokens: AccessTokens
    encryption: Encryption

    async def __call__(
        self,
        email: str = "alice@example.com",
        password: str = PASSWORD,
        *,
        otp: str | None = None,
        client: Client = CLIENT,
        now: datetime = NOW,
    ) -> Tokens:
        return await login(
            self.database,
            email=email,
            password=password,
            otp=otp,
            client=client,
            passwords=self.passwords,
            access_tokens=self.access_tokens,
            encryption=self.encryption,
            settings=self.settings,
            now=now,
        )

    async def refusal(self, email: str = "alice@example.com", password: str = PASSWORD, **options: Any) -> str:
        """The code with which it is refused."""
        with pytest.raises((Unauthenticated, Forbidden)) as caught:
            await self(email, password, **options)
        assert isinstance(caught.value, Unauthenticated | Forbidden)
        return caught.value.error_code


@pytest.fixture
def sign_in(
    database: Database,
    settings: Settings,
    passwords: Passwords,
    access_tokens: AccessTokens,
    encryption: Encryption,
) -> SignIn:
    return SignIn(database, settings, passwords, access_tokens, encryption)


@pytest.fixture(scope="session")
def password_hash(passwords: Passwords) -> str:
    """Of PASSWORD, as it is stored today; made once, as it takes time."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(passwords.hash(PASSWORD))).result()


@pytest.fixture(scope="session")
def quick_hash() -> str:
    """Of PASSWORD, as somebody may have stored it long ago: checked in no time, and made anew by whoever signs in."""
    return PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)


@pytest.fixture(scope="session")
def _sink() -> Iterator[SinkProcess]:
    with SinkProcess() as sink:
        yield sink


@pytest.fixture
def sink(_sink: SinkProcess) -> SinkProcess:
    """A mail server that takes everything, empty, and keeps what it took."""
    _sink.come_back()
    _sink.refuse({})
    _sink.refuse_all(0)
    _sink.slow_down(0)
    _sink.reset()
    _sink.keep_bodies()
    return _sink


@dataclass
class Clock:
    """The present, which stands still until a test moves it."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **duration: float) -> datetime:
        """Let time pass; takes what `timedelta` takes."""
        self.now += timedelta(**duration)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Worker:
    """One worker's jobs, called by hand: `tick` fires what is due, `send` empties the outbox, `work` both."""

    database: Database
    settings: Settings
    clock: Clock
    transport: Transport
    name: str = "worker"
    emails: ReminderEmails = field(init=False)
    sender: Sender = field(init=False)

    def __post_init__(self) -> None:
        links = Links(self.settings.secret_keys, public_url=self.settings.public_url)
        self.emails = ReminderEmails(links=links, mail_from=self.settings.mail_from)
        self.sender = Sender(
            self.database,
            self.transport,
            settings=self.settings,
            worker=self.name,
            clock=self.clock,
            seconds=lambda: self.clock().timestamp(),
        )

    async def tick(self) -> Fired | None:
        return await send_reminders(
            self.database, settings=self.settings, emails=self.emails, worker=self.name, clock=self.clock
        )

    async def send(self) -> dict[str, int] | None:
        return await self.sender.run()

    async def work(self) -> None:
        await self.tick()
        await self.send()


@dataclass
class Maildir:
    """Where a `worker` puts its mail."""

    folder: Path

    def messages(self) -> list[EmailMessage]:
        """What was delivered, by recipient and then by subject."""
        found = [read_message(path.read_bytes()) for path in (self.folder / "new").glob("*")]
        return sorted(found, key=lambda message: (message["To"], message["Subject"]))


def read_message(raw: bytes) -> EmailMessage:
    """A message as a mail program reads it."""
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    return Maildir(tmp_path / "mail")


@pytest.fixture
async def worker(database: Database, settings: Settings, clock: Clock, maildir: Maildir) -> AsyncIterator[Worker]:
    """A worker that delivers into a Maildir, by a clock that stands still."""
    transport = MaildirTransport(maildir.folder)
    await transport.check()  # makes the folders
    yield Worker(database, settings, clock, transport)
    await transport.close()


@pytest.fixture
async def smtp_worker(database: Database, settings: Settings, clock: Clock, sink: SinkProcess) -> AsyncIterator[Worker]:
    """A worker that delivers to the sink."""
    transport = open_transport(sink.url + "?timeout=5", data_dir=settings.data_dir)
    yield Worker(database, settings, clock, transport)
    await transport.close()
