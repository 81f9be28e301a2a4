"""Names to addresses by the system's resolver, which blocks: in threads that hold up nothing and nobody."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from scheduler.http_requests.addresses import Address, as_address

MOST_AT_ONCE = 32

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
"""All addresses of a name. Raises OSError (mostly `socket.gaierror`) when it has none, or nobody knows."""


class SystemResolver:
    """`getaddrinfo` (hosts file, DNS and whatever else the machine is set up for), at most so many at once.

    Each look-up has a thread of its own. The event loop's own threads would be used up by name servers that never
    answer, and with them all else that needs one; and the process could not end before the last of them gives up.
    """

    def __init__(self, most_at_once: int = MOST_AT_ONCE) -> None:
        self._free = asyncio.Semaphore(most_at_once)

    async def __call__(self, name: str) -> list[Address]:
        # Held until the thread ends, also when nobody waits for it any longer.
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()

        def settle(outcome: list[Address] | OSError) -> None:
            self._free.release()
            if answer.done():
                return
            if isinstance(outcome, OSError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        def look_up() -> None:
            outcome = _look_up(name)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, outcome)

        try:
            threading.Thread(target=look_up, name="name look-up", daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise OSError(str(error)) from None
        return await answer


def _look_up(name: str) -> list[Address] | OSError:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        return list(dict.fromkeys(as_address(str(sockaddr[0])) for *_, sockaddr in found))
    except OSError as error:
        return error
    except Exception as error:  # whatever it is, somebody waits for it: UnicodeError for a name, say
        return OSError(str(error))
