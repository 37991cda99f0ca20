"""The folder of a run: made where the user said, held by one process, owned by one command."""

from __future__ import annotations

import os
import shutil
import weakref
from pathlib import Path
from typing import ClassVar

from cgankd.core.errors import UserError


def make_folder(path: Path, option: str = "--out") -> None:
    """Make the folder that a user named; UserError where it can't be one, or can't be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{option} {path} is a file; a folder is needed") from None
    except PermissionError:
        raise UserError(f"{option} {path} can't be made: no permission to write there") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"{option} {path}: no permission to write there")


def lock(path: Path, command: str = "") -> int | None:
    """Hold the file until its descriptor is closed; UserError where another process holds it.

    command: whose folder it is from now on; UserError where it is another command's.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock; two runs in one folder are then the user's to avoid
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"--out {path.parent} is in use by another run; wait for it or choose another folder") from None
    owner = os.read(descriptor, 100).decode()
    if command and owner not in {"", command}:
        os.close(descriptor)
        raise UserError(
            f"--out {path.parent} is a folder of cgankd {owner}, whose files would be written over; needed: a new "
            f"folder, or one of cgankd {command}"
        )
    if not owner:
        os.write(descriptor, command.encode())
    return descriptor


class HeldFolder:
    """A folder that this process holds, made if it is not there; see :func:`make_folder` and :func:`lock`.

    It is held until it is closed, or nothing refers to this object any more. take_over: where this very process holds
    it already, as after a cell of a notebook that is run again, the earlier holder is closed first.
    """

    _held: ClassVar[weakref.WeakValueDictionary[Path, HeldFolder]] = weakref.WeakValueDictionary()

    def __init__(self, path: Path, command: str, take_over: bool = False) -> None:
        self.path, self._new = path, not path.exists()
        make_folder(path)
        if take_over and (earlier := self._held.get(path.resolve())) is not None:
            earlier.close()
        self._held[path.resolve()] = self
        self._lock = lock(path / ".lock", command)
        if self._lock is not None:
            self._release = weakref.finalize(self, os.close, self._lock)

    def close(self) -> None:
        """Let another process have it; a new folder in which nothing was made is removed."""
        if self._lock is None:
            return
        if self.path.is_dir() and [file.name for file in self.path.iterdir()] == [".lock"]:
            os.truncate(self._lock, 0)  # nothing was made, so it is no command's yet
            if self._new:
                shutil.rmtree(self.path)
        self._release()
        self._lock = None
