"""Whether this process has to stop: its time limit is reached, or somebody asked it to (SIGTERM)."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TIME_LIMIT = "the time limit is reached"
_asked: list[str] = []  # why this process was asked to stop


def deadline_in(minutes: float | None) -> float:
    """The value of time.monotonic() in ``minutes`` minutes; infinity for no minutes."""
    return math.inf if minutes is None else time.monotonic() + 60.0 * minutes


def reason_to_stop(deadline: float) -> str | None:
    """Why to stop now; None: go on. deadline: in time.monotonic's seconds."""
    if _asked:
        return _asked[0]
    return TIME_LIMIT if time.monotonic() >= deadline else None


@contextmanager
def stopping_on_sigterm(*further: str) -> Iterator[None]:
    """In this block SIGTERM makes loops save and stop, as a time limit does. A second SIGTERM ends the process at once.

    Batch queues and container hosts send SIGTERM some seconds before they kill. further: names of signals that mean the
    same; those that the system lacks are left out. Does nothing outside the main thread, because only the main thread
    may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        _asked.append(f"it was asked to stop ({signal.Signals(number).name})")
        signal.signal(number, signal.SIG_DFL)

    numbers = [getattr(signal, name) for name in ("SIGTERM", *further) if hasattr(signal, name)]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


@contextmanager
def ending_on_ctrl_c() -> Iterator[None]:
    """In this block Ctrl-C ends the process at once. It is for waits of torch that run no handler of Python meanwhile.

    Does nothing outside the main thread, as :func:`stopping_on_sigterm`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
