"""The start of a run's processes on this machine: where one of them ends before all have met, the others end too.

torch would wait for it for half an hour, and Fabric would kill the first process without a word.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FIRST = "CGANKD_FIRST_PROCESS"  # variable for the processes that Fabric starts: the number of the one that starts them
LOOK_AGAIN = 0.2  # seconds


class Start:
    """How this process meets the others. starts: it starts those of this machine itself."""

    def __init__(self, starts: bool) -> None:
        if starts:
            os.environ[FIRST] = str(os.getpid())
        self._first = int(os.environ.get(FIRST, 0))

    def lost(self) -> bool:
        """Whether the first process, or one that it started, has ended. False too where this can't be known."""
        if self._first != os.getpid():
            return self._first not in (0, os.getppid())
        return (observer := _observer()) is not None and any(other.poll() for other in observer._child_processes)

    @contextmanager
    def watched(self, end: Callable[[], None]) -> Iterator[None]:
        """In this block a second thread calls ``end()``, which must end this process, where another one is lost.

        Only a thread can do it, because the wait for the others runs no line of Python.
        """
        met = threading.Event()

        def watch() -> None:
            while not met.wait(LOOK_AGAIN):
                ended_children_send(None)
                if self.lost():
                    time.sleep(LOOK_AGAIN)  # for the main thread, where it has noticed this too
                    if not met.is_set():
                        end()

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            met.set()


def ended_children_send(number: signal.Signals | None) -> None:
    """What this process gets within 5 seconds after one that it started ended early; None: nothing.

    Fabric's own choice is SIGKILL, after which it can't say why it ends.
    """
    if observer := _observer():
        observer._termination_signal = number or 0


def _observer() -> Any:
    """Fabric's thread that looks after the processes that it started; None in these processes."""
    return next((thread for thread in threading.enumerate() if thread.name == "child-process-observer"), None)
