"""A telephone number confirmed over HTTP, through a gateway that listens on this machine."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_plus

from scheduler import clock
from scheduler.accounts.phone import send_code
from scheduler.runs.running import RunningJob
from tests.http_receiver import http_receiver
from tests.services.mailed import perform_queued
from tests.services.test_phone import ACCEPTED, PHONE, wrong
from tests.web.conftest import Service, assert_problem, start


async def test_a_number_is_confirmed_by_its_code(service: Service) -> None:
    alice = await service.person()
    for body in ({"phone": "030 901820"}, {"phone": None}, {}, {"phone": PHONE, "code": "1"}):
        assert_problem(await alice("POST", "/users/me/phone", json=body), 422, "validation_failed")
    assert_problem(await alice("POST", "/users/me/phone", json={"phone": PHONE}), 409, "no_sms_gateway")
    assert_problem(await alice("POST", "/users/me/phone/verify", json={"code": "123456"}), 422, "invalid_token")
    async with http_receiver(ACCEPTED) as gateway:
        url = f"twilio://AC1:token@127.0.0.1:{gateway.port}/+15550100"
        settings = service.settings.model_copy(update={"sms_url": url})

        async def perform(run: RunningJob) -> dict[str, Any]:
            return await send_code(service.database, run=run, settings=settings)

        runner, alice.base = await start(settings, service.database)
        try:
            asked = await alice("POST", "/users/me/phone", json={"phone": PHONE})
            assert (asked.status, asked.raw) == (202, b"")
            await perform_queued(service.database, perform, now=clock.now())
            (code,) = re.findall(r"\b\d{6}\b", unquote_plus(gateway.request.body.decode()))
            assert (await alice("GET", "/users/me")).json["phone"] is None
            refused = await alice("POST", "/users/me/phone/verify", json={"code": wrong(code)})
            assert_problem(refused, 422, "invalid_token")
            confirmed = await alice("POST", "/users/me/phone/verify", json={"code": code})
            assert (confirmed.status, confirmed.raw) == (204, b"")
            me = (await alice("GET", "/users/me")).json
            assert (me["phone"], me["phone_verified"]) == (PHONE, True)
            # The runs of it tell neither number nor code.
            runs = await alice("GET", "/runs")
            assert PHONE not in runs.text and code not in runs.text
            for _ in range(4):
                assert (await alice("POST", "/users/me/phone", json={"phone": PHONE})).status == 202
            often = await alice("POST", "/users/me/phone", json={"phone": PHONE})
            assert_problem(often, 429, "rate_limited")
            assert 0 < int(often.headers["Retry-After"]) <= 3600
        finally:
            await runner.cleanup()


async def test_nobody_runs_it_by_hand(service: Service) -> None:
    admin = await service.admin()
    for job in ("send_sms", "send_password_reset"):
        answer = await admin("POST", f"/admin/jobs/{job}/run")
        assert_problem(answer, 422, "validation_failed")
