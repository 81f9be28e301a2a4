"""The far end of HTTP requests: a server on loopback that counts what comes, and now and then refuses."""

from __future__ import annotations

import random
from collections import Counter
from typing import Self

from aiohttp import web

from scheduler.schedules.actions import RUN_HEADER


class Receiver:
    """Listens while it is entered."""

    def __init__(self, *, seed: int, refused: float) -> None:
        self.answered: Counter[str] = Counter()
        """How often each run's request was answered with 200."""
        self._refused = refused
        self._random = random.Random(f"{seed}/receiver")
        self.port = 0

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://127.0.0.1:{self.port}/"

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if self._random.random() < self._refused:
            return web.Response(status=503)
        self.answered[request.headers.get(RUN_HEADER, "")] += 1
        return web.Response(text="thank you")
