"""No orphan, ever: a child ends when its parent does, however the parent ends (`kill -9` included).

Two independent means, because neither alone is enough:

* On Linux the kernel sends the child a signal when its parent dies (`prctl(PR_SET_PDEATHSIG)`, see prctl(2)).
  It works for any program, `redis-server` too, since it survives `exec`. It is bound to the *thread* that
  forked, not to the process: a child forked in a helper thread would be killed when that thread ends, so
  `spawn` insists on the main thread.
* Our own Python children also get a **lifeline**: the read end of a pipe whose write end only the parent
  holds. The end of the parent, for whatever reason, is an end-of-file. This one is portable, and it also has
  a hard end: a child that does not stop within `PATIENCE_SECONDS` of losing its parent leaves at once.
  Nothing is lost by that (semantics.md, section 5).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

PATIENCE_SECONDS = 1.5
"""How long a Python child whose parent is gone may take for its orderly stop."""

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

# Loaded here and not between fork and exec, where only the bare minimum is safe.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _end_with_parent(parent: int, death_signal: int) -> Callable[[], None]:
    """What the child runs between fork and exec, so that it ends with the process `parent`."""

    def prepare() -> None:
        # 1. The parent's Python handlers are still installed in this copy of it and would swallow the signal,
        #    so that it would be lost with the `exec`: the default action must stand before the signal can
        #    come.
        signal.signal(death_signal, signal.SIG_DFL)
        # 2. Ask for the signal.
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        # 3. Only now look whether the parent is still there: had it died before step 2, no signal would ever
        #    come.
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
    output: IO[bytes] | int | None = None,
    errors: IO[bytes] | int | None = None,
    death_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `command` as a child that does not outlive us, in a session of its own.

    In a session of its own a terminal's Ctrl-C reaches only the parent, which then stops its children in
    order. `descriptors` are inherited under their numbers; `output` and `errors` default to ours. Raises
    OSError when the program can't be started, and RuntimeError outside the main thread (see the module's
    text).
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("Start child processes from the main thread: their end is bound to the thread that forks.")
    return subprocess.Popen(
        command,
        env=dict(environment) if environment is not None else None,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        pass_fds=tuple(descriptors),
        start_new_session=True,
        preexec_fn=_end_with_parent(os.getpid(), death_signal),
    )


class Lifeline:
    """The parent's side: one pipe for all its children. Give `read_end` to each; the write end is never
    inherited.
    """

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()

    def close(self) -> None:
        """Let go; every child that still holds on ends."""
        os.close(self.read_end)
        os.close(self._write_end)


class Gate:
    """Where children wait once they are loaded, until the parent lets them pass: what they need is being
    made.

    Loading takes a process longer than anything else it does at its start; so it may as well be done
    meanwhile.
    """

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()

    def open(self, children: int) -> None:
        """Let so many children pass, those that wait and those that are still to arrive."""
        os.write(self._write_end, b"1" * children)
        self.close()

    def close(self) -> None:
        """Let nobody pass any more; who waits ends."""
        os.close(self.read_end)
        os.close(self._write_end)


def pass_gate(descriptor: int) -> bool:
    """The child's side: wait. False if the gate was closed for good, or the parent is gone."""
    passed = os.read(descriptor, 1) != b""
    os.close(descriptor)
    return passed


def hold(descriptor: int, patience: float = PATIENCE_SECONDS) -> None:
    """The child's side: watch `descriptor`, and when the parent is gone stop in order, or else at once after
    `patience` s.

    The orderly stop is a SIGTERM to ourselves, the same that a parent sends. A thread, so that it works in
    any program and while an event loop is stuck.
    """
    os.set_inheritable(descriptor, False)

    def watch() -> None:
        while True:
            try:
                if os.read(descriptor, 1) == b"":
                    break
            except InterruptedError:
                continue
            except OSError:  # not a pipe, or closed: then there is nobody whose end we could notice
                return
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
