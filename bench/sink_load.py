"""How much the sink takes: messages of 3 KB over a few connections, pipelined (RFC 2920), by sendall.

python -m bench.sink_load [messages]
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

from bench.sink import HOST, SinkProcess

CONNECTIONS = 4
SIZE = 3_000  # bytes a message


def send(port: int, first: int, count: int) -> None:
    """Send messages over one connection: envelope and body of each in one write, replies read in bulk."""
    body = b"X" * 70 + b"\r\n"
    body *= SIZE // len(body)
    with socket.create_connection((HOST, port)) as connection, connection.makefile("rb") as replies:
        replies.readline()
        connection.sendall(b"EHLO load\r\n")
        while replies.readline()[3:4] == b"-":
            pass
        for start in range(first, first + count, 20):
            numbers = range(start, min(start + 20, first + count))
            connection.sendall(
                b"".join(
                    b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
                    b"From: a@b.example\r\nSubject: load\r\nMessage-ID: <%d@load>\r\n\r\n%s.\r\n" % (number, body)
                    for number in numbers
                )
            )
            for _ in range(4 * len(numbers)):
                replies.readline()


def measure(count: int) -> dict[str, float]:
    """Messages a second, by the sink's own clock."""
    with SinkProcess() as sink:
        threads = [
            threading.Thread(target=send, args=(sink.port, i * count // CONNECTIONS, count // CONNECTIONS))
            for i in range(CONNECTIONS)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        messages = sink.messages()
        seconds = messages[-1].monotonic - began
        distinct = len({message.message_id for message in messages})
    return {"n": distinct, "seconds": seconds, "per_second": distinct / seconds}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)))
