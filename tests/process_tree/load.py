"""A strict load of requests: whatever is not a 200 on the first try counts as a failure."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from typing import Self


class Load:
    """Requests without a pause from several threads, over kept-open connections and over new ones, until
    `stop`.

    A connection that the server closes after an answer that said so (`Connection: close`) is no failure; one
    that is closed without it, reset or refused is.
    """

    def __init__(self, port: int, *, path: str = "/healthz", kept: int = 3, new: int = 2, pause: float = 0.0) -> None:
        self.port, self.path, self.pause = port, path, pause
        self.answers = 0
        self.failures: Counter[str] = Counter()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._kept, daemon=True) for _ in range(kept)]
        self._threads += [threading.Thread(target=self._new, daemon=True) for _ in range(new)]

    def _kept(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self._stop.is_set():
            if not self._ask(connection, {}):
                connection.close()
            time.sleep(self.pause)
        connection.close()

    def _new(self) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            self._ask(connection, {"Connection": "close"})
            connection.close()
            time.sleep(self.pause)

    def _ask(self, connection: http.client.HTTPConnection, headers: dict[str, str]) -> bool:
        try:
            connection.request("GET", self.path, headers=headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            failure = f"{type(error).__name__}: {error}"
        else:
            failure = "" if answer.status == 200 else f"status {answer.status}"
        with self._lock:
            if failure:
                self.failures[failure] += 1
            else:
                self.answers += 1
        return not failure

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
