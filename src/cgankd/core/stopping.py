"""Whether this process has to stop: its time limit is reached, or somebody asked it to (SIGTERM, Ctrl-C)."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cgankd.core.errors import OutOfTime

ORDERLY = (75, 130)  # exit codes of a run that was stopped; the same command goes on
TIME_LIMIT = "the time limit is reached"
CTRL_C = "Ctrl-C was pressed"
SAVING = b"\nsaving the state of this loop; Ctrl-C again stops at once\n"
LOOKS_AGAIN = 10.0  # seconds in which a loop looks again whether it has to stop, but for very slow steps
_asked: list[str] = []  # why this process was asked to stop
_looked = -math.inf  # when a loop last looked, in time.monotonic's seconds


def deadline_in(minutes: float | None) -> float:
    """The value of time.monotonic() in ``minutes`` minutes; infinity for no minutes."""
    return math.inf if minutes is None else time.monotonic() + 60.0 * minutes


def reason_to_stop(deadline: float) -> str | None:
    """Why to stop now; None: go on. deadline: in time.monotonic's seconds."""
    global _looked
    _looked = time.monotonic()
    if _asked:
        return _asked[0]
    return TIME_LIMIT if time.monotonic() >= deadline else None


def stop_in_time(deadline: float) -> None:
    """Raise OutOfTime, or after Ctrl-C KeyboardInterrupt, where there is a reason to stop now."""
    if (reason := reason_to_stop(deadline)) is not None:
        raise KeyboardInterrupt if reason == CTRL_C else OutOfTime(reason)


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
def saving_on_ctrl_c(alone: Callable[[], bool]) -> Iterator[None]:
    """In this block Ctrl-C makes a running loop save and stop. The second one, or one while no loop runs, interrupts at
    once.

    alone: whether no other process computes with this one; several are interrupted together. Does nothing outside the
    main thread, as :func:`stopping_on_sigterm`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before)
        if time.monotonic() - _looked > LOOKS_AGAIN or not alone():
            raise KeyboardInterrupt
        _asked.append(CTRL_C)
        os.write(2, SAVING)  # not print(), which may be what the signal has interrupted

    if before == signal.default_int_handler:  # another one is the caller's own, or SIGINT is ignored
        signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
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
