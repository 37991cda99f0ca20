"""Several processes share a folder of artifacts: one of them computes an artifact, and the others wait for it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_AGAIN = 0.5  # seconds


@contextmanager
def leased(path: Path, wait: Callable[[float], None], is_done: Callable[[], bool]) -> Iterator[None]:
    """In this block no other process holds the lock file ``path``, which is created.

    wait: called with the seconds waited so far, again and again while another process holds it; it may raise. Where
    the holder dies, the system frees the lock. The file is removed at the end of the block if ``is_done()``; before
    that, removing it would let a third process in beside one that waits.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    waited = 0.0
    try:
        while not _locked(fcntl, descriptor):
            wait(waited)
            time.sleep(LOOK_AGAIN)
            waited += LOOK_AGAIN
        yield
        if is_done():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    finally:
        os.close(descriptor)


def _locked(fcntl: object, descriptor: int) -> bool:
    """Whether this process has now locked the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[attr-defined]
    except BlockingIOError:
        return False
    return True
