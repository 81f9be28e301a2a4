"""A minimal SMTP server that takes everything: a process of its own, quick enough not to be what is measured.

    python -m bench.sink          prints {"smtp_port": …, "control_port": …} and serves until its end

`SinkProcess` starts one and talks to it over the control port: one JSON object a line each way, such as
{"do": "count"}. It is a plain class, for tests too; its methods block for a moment.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from bench.sink_protocol import Arrival, Session, Sink
from tests.processes import spawn

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"


# -- the process ---------------------------------------------------------------------------------------------


class Service:
    """The listening socket, which can go away and come back, and the control port."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.port = 0
        self.server: asyncio.Server | None = None

    async def come_back(self) -> None:
        """Listen (again), on the same port as before."""
        if self.server is None:
            loop = asyncio.get_running_loop()
            self.server = await loop.create_server(
                lambda: Session(self.sink), HOST, self.port, backlog=1024, reuse_address=True
            )
            self.port = self.server.sockets[0].getsockname()[1]

    def go_away(self) -> None:
        """Refuse connections and cut those that are open; what was taken stays known."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for session in list(self.sink.connections):
            session.transport.abort()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one controlling connection: a JSON object a line, answered by one."""
        while line := await reader.readline():
            request = json.loads(line)
            writer.write(json.dumps(await self.do(request)).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def do(self, request: dict[str, Any]) -> Any:
        """Carry out one request. Raises ValueError for an unknown one."""
        arrivals = self.sink.arrivals
        match request["do"]:
            case "count":
                return len(arrivals)
            case "messages":
                return [
                    arrival._replace(body=arrival.body and base64.b64encode(arrival.body).decode())  # type: ignore[arg-type]
                    for arrival in arrivals[request["since"] :]
                ]
            case "reset":
                arrivals.clear()
            case "behave":
                for name, value in request["as"].items():
                    setattr(self.sink.behaviour, name, value)
            case "go_away":
                self.go_away()
            case "come_back":
                await self.come_back()
            case "connections":
                return [len(self.sink.connections), self.sink.connections_ever]
            case unknown:
                raise ValueError(unknown)
        return None


async def serve() -> None:
    """Serve until SIGTERM or SIGINT."""
    service = Service()
    await service.come_back()
    control = await asyncio.start_server(service.control, HOST, 0, limit=1 << 24)
    ports = {"smtp_port": service.port, "control_port": control.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


# -- those who use it ----------------------------------------------------------------------------------------


class SinkProcess:
    """Starts a sink on a free port of loopback; usable as a context manager."""

    def __init__(self) -> None:
        self.process = spawn(
            [sys.executable, "-m", "bench.sink"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        ports = json.loads(self.process.stdout.readline())
        self.port: int = ports["smtp_port"]
        self._control = socket.create_connection((HOST, ports["control_port"]), timeout=60)
        self._answers = self._control.makefile("rb")

    @property
    def url(self) -> str:
        """For PUNCTUAL_MAIL_URL: no TLS, no sign-in."""
        return f"smtp://{HOST}:{self.port}"

    def _do(self, what: str, **more: Any) -> Any:
        self._control.sendall(json.dumps({"do": what, **more}).encode() + b"\n")
        return json.loads(self._answers.readline())

    def count(self) -> int:
        """How many messages were taken since the start or the last `reset`."""
        return int(self._do("count"))

    def messages(self, since: int = 0) -> list[Arrival]:
        """What was taken, in the order of arrival, from the given position on."""
        return [
            Arrival(identifier, wall, monotonic, tuple(recipients), body and base64.b64decode(body))
            for identifier, wall, monotonic, recipients, body in self._do("messages", since=since)
        ]

    def reset(self) -> None:
        """Forget what was taken."""
        self._do("reset")

    def keep_bodies(self, keep: bool = True) -> None:
        """Keep the bytes of the messages that come from now on."""
        self._do("behave", **{"as": {"keep": keep}})

    def refuse(self, addresses: dict[str, int]) -> None:
        """Answer RCPT for these addresses with these codes (5xx for good, 4xx for now); `{}` ends it."""
        self._do("behave", **{"as": {"refused": {key.lower(): code for key, code in addresses.items()}}})

    def refuse_all(self, code: int) -> None:
        """Answer every RCPT with this code; 0 takes them again."""
        self._do("behave", **{"as": {"refuse_all": code}})

    def slow_down(self, seconds: float) -> None:
        """Wait before each reply (but 354)."""
        self._do("behave", **{"as": {"delay": seconds}})

    def swallow(self, count: int) -> None:
        """Take that many messages, then cut the connection and answer no 250: landed, yet it fails there."""
        self._do("behave", **{"as": {"swallow": count}})

    def connections(self) -> tuple[int, int]:
        """How many connections are open now, and how many there ever were."""
        now, ever = self._do("connections")
        return now, ever

    def go_away(self) -> None:
        """Refuse connections and cut the open ones, as a server that is down; what it took stays known."""
        self._do("go_away")

    def come_back(self) -> None:
        """Listen again on the same port."""
        self._do("come_back")

    def restart(self) -> None:
        """Go away and come back at once: every connection is cut."""
        self.go_away()
        self.come_back()

    def stop(self) -> None:
        """End the process."""
        self._answers.close()
        self._control.close()
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve())
