"""The folder of a run: one process at a time may use it, and one command owns it."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

from cgankd.core.errors import UserError
from cgankd.core.files import read_json, sync
from cgankd.core.paths import ABLATION, LOCK, RECIPE, RESULTS, TABLE, check_there

READ_ONLY = "the file system is read-only; needed: a folder that can be written to"


def make_folder(path: Path, option: str = "--out") -> None:
    """Create the folder that a user named; UserError where this is not possible, or it is not writable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{option} {path} is a file; a folder is needed") from None
    except PermissionError:
        raise UserError(f"{option} {path} can't be created: no permission to write there") from None
    except FileNotFoundError:  # as below /proc
        raise UserError(f"{option} {path} can't be created there") from None
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        raise UserError(f"{option} {path} can't be created: {READ_ONLY}") from None
    if not os.access(path, os.W_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY
        raise UserError(f"{option} {path}: {READ_ONLY if read_only else 'no permission to write there'}")


def check_new(folder: Path, option: str = "--out") -> None:
    """UserError where ``folder`` is a file, is not empty, or can't be created; its parent folder is created."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{option} {folder} is there already; a new or empty folder is needed")
    make_folder(folder.absolute().parent, option)


@contextmanager
def new_folder(folder: Path, option: str = "--out") -> Iterator[Path]:
    """Yields a temporary folder, which gets the name ``folder`` when the block ends; if it raises, nothing is left.

    Raises UserError as :func:`check_new` does.
    """
    check_new(folder, option)
    parent = folder.absolute().parent
    work = Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.name}."))
    try:
        yield work
        work.chmod(0o755)
        work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sync(parent)


def lock(path: Path, command: str = "", *, shared: bool = False, option: str = "--out") -> int | None:
    """Lock the file until its descriptor is closed; UserError where another process has locked it.

    command: the command that owns the folder from now on; UserError where another command owns it. shared: further
    processes may lock it that share it too.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock; there the user must not start two runs in one folder
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"{option} {path.parent} is in use by another run; wait for it or choose another folder"
        ) from None
    owner = os.read(descriptor, 100).decode()
    if command and owner not in {"", command}:
        os.close(descriptor)
        raise UserError(
            f"{option} {path.parent} is a folder of cgankd {owner}, whose files would be overwritten; needed: a new "
            f"folder, or a folder of cgankd {command}"
        )
    if not owner:
        os.write(descriptor, command.encode())
    return descriptor


class HeldFolder:
    """A folder that this process has locked, created if necessary; see :func:`make_folder` and :func:`lock`.

    It stays locked until it is closed or this object is deleted. take_over: where this same process has locked it
    before (a notebook cell that runs again), the earlier holder is closed first. shared: see :func:`lock`. option: the
    name in errors of what the user gave.
    """

    # by texts, because Python can't compare paths any more when it ends
    _held: ClassVar[weakref.WeakValueDictionary[str, HeldFolder]] = weakref.WeakValueDictionary()

    def __init__(
        self, path: Path, command: str, take_over: bool = False, shared: bool = False, option: str = "--out"
    ) -> None:
        self.path, place = path, path.resolve()
        try:
            str(path).encode()
        except UnicodeEncodeError:  # safetensors can't read such a path, nor can it be written to JSON
            raise UserError(f"{option} {path} has bytes that are not UTF-8; needed: another name") from None
        if take_over and (earlier := self._held.get(str(place))) is not None:
            earlier.close()
        self._new = [folder for folder in (place, *place.parents) if not folder.exists()]
        make_folder(path, option)
        self._lock = lock(path / LOCK, command, shared=shared, option=option)
        self._held[str(place)] = self
        if self._lock is not None:
            self._release = weakref.finalize(self, os.close, self._lock)

    def share(self) -> None:
        """From now on further processes may use the folder that share it too, such as workers of this one."""
        if self._lock is not None:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """Unlock the folder. If nothing was written to it, what this object created is removed: the folder, and those
        above it that hold nothing else."""
        if self._lock is None:
            return
        if self.path.is_dir() and [file.name for file in self.path.iterdir()] == [LOCK]:
            os.truncate(self._lock, 0)  # nothing was written, so no command owns it yet
            if self._new:
                (self.path / LOCK).unlink()
            with contextlib.suppress(OSError):  # a folder above holds something else
                for folder in self._new:
                    folder.rmdir()
        self._release()
        self._lock = None


def check_usable(path: Path, command: str) -> None:
    """UserError where ``command`` could not use the folder; nothing is left behind. See :class:`HeldFolder`."""
    HeldFolder(path, command).close()


def read_results(folder: Path, needed: Iterable[str]) -> dict[str, Any]:
    """The results of a finished run. UserError where ``folder`` has none, or they lack a ``needed`` entry."""
    check_there(folder)
    path = folder / RESULTS
    if not path.is_file():
        stopped = " (the command of this one goes on)" if (folder / LOCK).is_file() else ""
        raise UserError(f"{folder} holds no {RESULTS}; give the --out folder of a finished run{stopped}")
    results = read_json(path)
    missing = [name for name in needed if not isinstance(results, dict) or name not in results]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}: it is not of cgankd run, or of an older version; the same command "
            "writes it anew"
        )
    return cast(dict[str, Any], results)


def earlier(path: Path) -> Any:
    """What an earlier command wrote as JSON in its folder; None where nothing is, or a crash of the machine cut it.

    Raises UserError where it is no JSON and the folder was never a run's, because it is a file of somebody else.
    """
    if not path.is_file():
        return None
    try:
        return read_json(path)
    except UserError:
        if not any((path.parent / name).is_file() for name in (LOCK, RECIPE)):  # the latter: a table's cell
            raise
        return None


def check_recipe(folder: Path, name: str) -> None:
    """UserError where ``folder`` holds the results of another recipe than ``name``, because they would be lost, or a
    table or an ablation of other recipes, which would not go on beside them."""
    file = folder / RESULTS
    results = earlier(file)
    owner = results.get("recipe") if isinstance(results, dict) else None
    if results is not None and not isinstance(owner, str):
        raise UserError(f"{file} is not a file of cgankd run; choose another --out")
    if isinstance(owner, str) and owner != name:
        raise UserError(
            f"--out {folder} holds the results of recipe {owner!r}, which a run of {name!r} would overwrite; needed: "
            f"another folder, or name={shlex.quote(owner)}"
        )
    for file in (folder / TABLE, folder / ABLATION):
        if (others := _recipes(file)) and name not in others:
            raise UserError(
                f"--out {folder} holds {file.name} of recipe {', '.join(map(repr, others))}, whose command would not "
                f"go on beside a run of {name!r}; needed: another folder, or name={shlex.quote(others[0])}"
            )


def _recipes(file: Path) -> list[str]:
    """The names of the recipes in the file of a table or an ablation; [] where it is none."""
    try:
        content = read_json(file)
    except (OSError, UserError):
        return []
    names = content.get("recipes") if isinstance(content, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
