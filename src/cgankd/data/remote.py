"""Images at an address that fsspec reads, such as s3://bucket/images: copied once, and again where they have changed.

A copy is ``$CGANKD_DATA``/remote/ADDRESS/VERSION/NAME. VERSION is a hash of the paths, the sizes and the marks of the
content; the folder gets this name when all files are there. What reads the copy need not know of the address.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cgankd.core.addresses import is_remote
from cgankd.core.errors import UserError
from cgankd.core.files import WINDOWS, read_json, sync, write_json
from cgankd.core.hashing import content_key
from cgankd.core.lease import leased
from cgankd.core.paths import LOCK, portable
from cgankd.core.progress import SILENT, Progress
from cgankd.data import public
from cgankd.data.remote_files import TOGETHER, ByteCounter, RemoteFile, failing_as, list_files, opened

FOLDER = "remote"
LIST = ".files.json"  # in the folder of a version: path -> version of the file
COMING = ".coming."  # begins the name of the folder of files that are not whole yet
Files = Mapping[str, RemoteFile]

_in_use: dict[str, str] = {}  # address -> its copy, in a block of at_hand


@contextlib.contextmanager
def at_hand(source: str, progress: Progress = SILENT) -> Iterator[str]:
    """A source as a path on this machine: itself, or the copy of an address, which is made first if necessary.

    Inside the block the other side is not asked again, and a UserError names the address in place of the copy. Raises
    UserError where the address can't be read.
    """
    if not is_remote(source) or source in _in_use:
        yield _in_use.get(source, source)
        return
    local = _in_use[source] = str(local_copy(source, progress))
    try:
        yield local
    except UserError as error:
        raise UserError(str(error).replace(local, source.rstrip("/"))) from error.__cause__
    finally:
        _in_use.pop(source, None)


def local_copy(address: str, progress: Progress = SILENT) -> Path:
    """The copy of the file or the folder at ``address``, up to date. Raises UserError where it can't be read."""
    fs, root = opened(address)
    plain = address.rstrip("/")
    home = public.home() / FOLDER / f"{portable(plain)[:80]}-{content_key(plain)}"
    try:
        files = list_files(fs, root, address)
    except UserError as error:
        raise UserError(f"{error}{_earlier(home)}") from error.__cause__
    version = content_key({path: file.version for path, file in files.items()})
    done = home / version / next(iter(files)).partition("/")[0]
    if not done.exists():
        with _alone(home, done, address, progress):
            if not done.exists():
                _copy(fs, files, home, version, address, progress)
    return done


def _earlier(home: Path) -> str:
    """Where an earlier copy is, for a message."""
    for names in home.glob(f"[!.]*/{LIST}"):
        for name in {path.partition("/")[0] for path in read_json(names)}:
            return f"; an earlier copy is {names.parent / name}, which can be named in its place"
    return ""


def _alone(home: Path, done: Path, address: str, progress: Progress) -> contextlib.AbstractContextManager[None]:
    """In this block no other process copies the same address."""
    if WINDOWS:
        return contextlib.nullcontext()

    def wait(seconds: float) -> None:
        if not seconds:
            progress.say(f"{address}: another process copies it; waiting")

    return leased(home / LOCK, wait, done.exists)


def _copy(fs: Any, files: Files, home: Path, version: str, address: str, progress: Progress) -> None:
    """Make the folder of a version. Files that an earlier or an unfinished version has are taken from there."""
    part = home / f".{version}.part"
    part.mkdir(parents=True, exist_ok=True)
    write_json(part / LIST, {path: file.version for path, file in files.items()})
    others = [folder for folder in home.iterdir() if folder.is_dir() and folder != part]
    for other in others:
        _take(files, other, part)
    missing = {path: file for path, file in files.items() if not _is_whole(part / path, file)}
    size = sum(file.size or 0 for file in missing.values())
    if size > (free := shutil.disk_usage(home).free):
        needed = f"{size / 1e6:,.0f} MB are to be copied to {home}, where {free / 1e6:,.0f} MB are free"
        raise UserError(f"{address}: {needed}; free space, or set {public.VARIABLE} to another folder")
    with progress.bar(f"copy {address} (MB)", size / 1e6) as bar:
        bar.unit = "MB"
        counter, paths = ByteCounter(lambda copied: bar.to(min(copied, size) / 1e6)), list(missing)
        for start in range(0, len(paths), TOGETHER):
            some = {path: missing[path] for path in paths[start : start + TOGETHER]}
            _fetch(fs, some, part, address, counter)
    for rest in part.glob(f"{COMING}*"):  # of a process that was killed
        shutil.rmtree(rest)
    shutil.rmtree(home / version, ignore_errors=True)  # where the user has deleted what was in it
    part.replace(home / version)
    sync(home)
    for other in others:
        if other.name != version:
            shutil.rmtree(other, ignore_errors=True)


def _take(files: Files, other: Path, part: Path) -> None:
    """Links to the files of another version that are also files of this one."""
    with contextlib.suppress(OSError, UserError):  # a folder without a readable list has nothing that can be taken
        for path, version in read_json(other / LIST).items():
            file = files.get(path)
            if file is None or file.version != version or (part / path).exists() or not _is_whole(other / path, file):
                continue
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            (part / path).hardlink_to(other / path)


def _is_whole(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and (file.size is None or path.stat().st_size == file.size)


def _fetch(fs: Any, files: Files, part: Path, address: str, counter: ByteCounter) -> None:
    """Copy a few files into ``part``; each gets its name when it is whole."""
    work = Path(tempfile.mkdtemp(dir=part, prefix=COMING))
    try:
        coming = {path: work / str(number) for number, path in enumerate(files)}
        with failing_as(address):
            fs.get([file.path for file in files.values()], [str(path) for path in coming.values()], callback=counter)
        for path, file in files.items():
            if not _is_whole(coming[path], file):
                raise UserError(
                    f"{address}: the copy of {file.path} has not the {file.size:,} bytes that were announced; the same "
                    "command goes on from here"
                )
            sync(coming[path])
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            coming[path].replace(part / path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
