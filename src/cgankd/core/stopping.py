"""Whether this process has to stop: its time limit is reached, or somebody asked it to (SIGTERM)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TIME_LIMIT = "the time limit is reached"
_asked: list[str] = []  # why this process was asked to stop


def reason_to_stop(deadline: float) -> str | None:
    """Why to stop now; None: go on. deadline: in time.monotonic's seconds."""
    if _asked:
        return _asked[0]
    return TIME_LIMIT if time.monotonic() >= deadline else None


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """In this block SIGTERM makes loops save and stop, as a time limit does. A second SIGTERM ends the process at once.

    Batch queues and container hosts send SIGTERM some seconds before they kill. Does nothing outside the main thread,
    because only the main thread may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        _asked.append("it was asked to stop (SIGTERM)")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _asked.clear()
