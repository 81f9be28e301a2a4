"""Peers without a ledger: messages made beforehand, sent by aiosmtplib over kept-open connections.

    python plain_loop.py send_message|sendmail PORT --messages 20000 --people 500 --connections 8

`send_message` gets EmailMessage objects, `sendmail` bytes that are ready. Prints {"n", "seconds"} as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import uvloop
from message import build

SENDER = "punctual@punctual.example"


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Build, connect, and only then take the time."""
    messages = [
        build(
            number,
            title=f"Water the plants in room {number}",
            name=f"Person {number % options.people}",
            address=f"person{number % options.people}@people.example",
        )
        for number in range(options.messages)
    ]
    send: Callable[[aiosmtplib.SMTP, Any], Awaitable[Any]]
    work: list[Any]
    if options.how == "send_message":
        work = list(messages)

        async def send(client: aiosmtplib.SMTP, message: EmailMessage) -> None:
            await client.send_message(message)
    else:
        work = [(message["To"], message.as_bytes()) for message in messages]

        async def send(client: aiosmtplib.SMTP, item: tuple[str, bytes]) -> None:
            await client.sendmail(SENDER, [item[0]], item[1])

    clients = [
        aiosmtplib.SMTP(hostname="127.0.0.1", port=options.port, use_tls=False, start_tls=False)
        for _ in range(options.connections)
    ]
    for client in clients:
        await client.connect()
    left = iter(work)

    async def take_turns(client: aiosmtplib.SMTP) -> None:
        for item in left:
            await send(client, item)

    began = time.monotonic()
    await asyncio.gather(*(take_turns(client) for client in clients))
    seconds = time.monotonic() - began
    for client in clients:
        await client.quit()
    return {"n": options.messages, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["send_message", "sendmail"])
    parser.add_argument("port", type=int)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--connections", type=int, default=8)
    print(json.dumps(uvloop.run(run(parser.parse_args()))))
