"""What people's requests leave to the workers: the link to a new password, the code for a telephone number."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from urllib.parse import unquote_plus

import pytest

from jobs.performers import PERFORMERS
from models import User
from scheduler.accounts.client import Client
from scheduler.accounts.password_reset import find_reset, request_password_reset
from scheduler.accounts.phone import request_code, verify_phone
from scheduler.clock import now
from scheduler.database import Database
from scheduler.encryption import Encryption
from scheduler.runs.jobs import JobName
from scheduler.settings import Settings
from tests.factories import add_person
from tests.http_receiver import answer, http_receiver, says
from tests.jobs.conftest import working
from tests.services.engine import until
from tests.services.stored import one

ACCEPTED = says(answer("201 Created", b'{"sid": "SM1"}', content_type="application/json"))
PHONE = "+4930901820"


def test_every_job_has_somebody_who_does_it() -> None:
    assert set(PERFORMERS) == set(JobName)


@pytest.mark.heavy(on="mariadb")
async def test_a_worker_sends_the_link_and_the_code(settings: Settings, database: Database) -> None:
    alice = await add_person(database, "alice")
    encryption = Encryption(settings.secret_keys)

    async def read_mail() -> str | None:
        for path in (settings.data_dir / "mail" / "new").glob("*"):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            assert isinstance(message, EmailMessage)
            if found := re.search(r"/act/reset\?token=([\w-]+)", str(message.get_body(("plain",)))):
                return found[1]
        return None

    async with http_receiver(ACCEPTED) as gateway:
        url = f"twilio://AC1:token@127.0.0.1:{gateway.port}/+15550100"
        settings = settings.model_copy(update={"sms_url": url})
        async with working(settings):
            async with database.write() as session:
                await request_password_reset(
                    session, address="alice@example.com", encryption=encryption, request_id=None, now=now()
                )
                await request_code(session, actor=alice, phone=PHONE, settings=settings, request_id=None, now=now())
            token = await until(read_mail, what="the e-mail")

            async def received() -> bool:
                return bool(gateway.requests)

            await until(received, what="the text message")
    async with database.read() as session:
        assert (await find_reset(session, token=token, now=now())).user_id == alice.user_id
    (code,) = re.findall(r"\b\d{6}\b", unquote_plus(gateway.request.body.decode()))
    client = Client("192.0.2.1", "a browser")
    await verify_phone(database, actor=alice, code=code, client=client, settings=settings, now=now())
    assert (await one(database, User)).phone == PHONE
