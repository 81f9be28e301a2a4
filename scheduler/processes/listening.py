"""The sockets that the web's processes accept from: bound once by the parent, inherited by each child.

Why one shared socket and not one SO_REUSEPORT socket a process: with SO_REUSEPORT each socket has a queue of
its own, and Linux resets the connections that wait in the queue of a socket that is closed, so that every
replacement of a process would lose some. A shared socket has one queue that outlives each process. Loads are
shared by whoever is idle accepting first. SO_REUSEPORT is still set, so that several `punctual web` commands
can serve one port side by side.
"""

from __future__ import annotations

import errno
import os
import socket

BACKLOG = 1024
"""Connections that may wait to be accepted."""


class ListenError(Exception):
    """The address can't be listened on; the message is one line that names the setting."""


def bind(host: str, port: int, *, share: bool) -> list[socket.socket]:
    """Bind each address that `host` stands for (`localhost` is two). Raises `ListenError`.

    With `share` other commands may listen on the same port (SO_REUSEPORT), and a child is the first to
    listen, once it is ready to answer: until then nobody is sent here. Without, we listen at once: only that
    makes the port ours, and whoever connects waits for the first child.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"PUNCTUAL_HOST: {host} is no address of this machine ({error.strerror})") from None
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            if not share:
                listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            # A name may stand for an address that this machine does not have (IPv6 switched off).
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                failure = error
                continue
            close(bound)
            raise _explain(error, host, port) from None
        bound.append(listener)
    if not bound:
        raise _explain(failure or OSError(errno.EADDRNOTAVAIL, ""), host, port)
    return bound


def _explain(error: OSError, host: str, port: int) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return ListenError(
            f"PUNCTUAL_PORT: port {port} of {host} is taken by another program; stop that or set another port"
        )
    if error.errno == errno.EACCES:
        return ListenError(f"PUNCTUAL_PORT: no permission to listen on port {port}; set one from 1024 up")
    if error.errno == errno.EADDRNOTAVAIL:
        return ListenError(f"PUNCTUAL_HOST: {host} is no address of this machine")
    return ListenError(f"PUNCTUAL_HOST, PUNCTUAL_PORT: can't listen on {host}, port {port}: {error.strerror}")


def close(sockets: list[socket.socket]) -> None:
    """Give the addresses free."""
    for listener in sockets:
        listener.close()


def adopt(descriptors: tuple[int, ...]) -> list[socket.socket]:
    """The child's side: the sockets behind inherited descriptors, from here on not inherited any further."""
    sockets = []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
    return sockets
