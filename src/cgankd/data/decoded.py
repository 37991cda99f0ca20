"""Decoded images of large sets in files that are mapped into memory: decoded once, found by every later start.

They are in ``$CGANKD_DATA``/decoded/KEY/PLAN.u8. KEY is a hash of the path (of a link: of what it leads to), the size
and the times of change of each file that the images are read from, PLAN the shape they were brought to. PLAN.json is
written last: without it, or where the file is not as it says, the images are decoded again. The folder may be deleted
while no program uses it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from cgankd.core.errors import UserError
from cgankd.core.files import WINDOWS, read_json, sync, write_json
from cgankd.core.lease import leased
from cgankd.core.mapped_rows import Images, MappedRows, known_folder
from cgankd.core.paths import LOCK
from cgankd.core.progress import SILENT, Progress
from cgankd.core.row_file import RowFile, map_rows, release_pages
from cgankd.data import public
from cgankd.data.image_files import EncodedPictures, Unusable
from cgankd.data.listing import Ints, Kind, Peak, Pictures, Plan

FOLDER, FACTS, BAD = "decoded", "kinds.json", "unusable.json"
MOST_IN_MEMORY = 64_000_000  # bytes of decoded images: smaller sets stay in memory
VERSION = 1  # raise it where the same files give other pixels
UNUSED = 30 * 86_400.0  # seconds since a folder was used; older ones go when another set is decoded


class Decoded:
    """The images of a source, as :class:`Pictures` has them; those of large sets are decoded into a file."""

    def __init__(self, pictures: Pictures, progress: Progress = SILENT) -> None:
        self._pictures, self._progress = pictures, progress
        self._folder = _place(pictures)[0]
        self._facts = {} if self._folder is None else _read(self._folder / FACTS)
        self._stored: dict[Plan, np.memmap | None] = {}  # None: no file can be written
        self._counted = False  # whether all images were counted when they were decoded

    def kinds(self) -> Counter[Kind]:
        """The number of images of each kind. A set that was decoded before is not looked at again."""
        if "kinds" not in self._facts:
            self._facts["kinds"] = [[list(kind), count] for kind, count in self._pictures.kinds().items()]
        return Counter({Kind(*kind): count for kind, count in self._facts["kinds"]})

    def peak(self) -> Peak:
        """The largest value of all 16-bit images."""
        if "peak" not in self._facts:
            self._facts["peak"] = list(self._pictures.peak())
        return Peak(*self._facts["peak"])

    def read(self, rows: Ints, plan: Plan, done: Callable[[int], None]) -> Images:
        """The images at ``rows``, uint8 [len(rows), C, H, W]; ``done(n)`` after each n images, of which there may be
        others too."""
        shape = (sum(self.kinds().values()), plan.channels, plan.height, plan.width)
        if self._folder is None or math.prod(shape) <= MOST_IN_MEMORY:
            return self._pictures.read(rows, plan, done)
        if plan not in self._stored:
            self._stored[plan] = self._open(self._folder, shape, plan, done)
        stored = self._stored[plan]
        if stored is None:
            return self._pictures.read(rows, plan, done)
        if not self._counted:
            done(len(rows))
        return MappedRows(stored, rows)

    def _open(self, folder: Path, shape: tuple[int, ...], plan: Plan, done: Callable[[int], None]) -> np.memmap | None:
        """The file with all images, which is written first if necessary; None where it can't be written."""
        path = folder / f"{plan.channels}x{plan.height}x{plan.width}-{plan.shape}-{plan.bits}.u8"
        size = math.prod(shape)
        try:
            if not _is_whole(path, size):
                with self._alone(path, size):
                    if not _is_whole(path, size):
                        self._decode(path, shape, plan, done)
                        self._counted = True
                        said = f"images decoded into {path}, {size / 1e6:,.0f} MB, where later starts find them"
                        self._progress.say(said)
        except OSError as error:
            self._progress.say(
                f"images are kept in memory, {size / 1e6:,.0f} MB, because they can't be written to {folder} "
                f"({error.strerror or error}); {public.VARIABLE} sets another folder"
            )
            return None
        with contextlib.suppress(OSError, UnicodeEncodeError):  # another user's folder; a name that is no text
            if self._facts != _read(folder / FACTS):
                write_json(folder / FACTS, self._facts)
            os.utime(folder)
        return map_rows(path, shape[1:])

    def _alone(self, path: Path, size: int) -> contextlib.AbstractContextManager[None]:
        """In this block no other process decodes the same images."""
        if WINDOWS:
            path.parent.mkdir(parents=True, exist_ok=True)
            return contextlib.nullcontext()

        def wait(seconds: float) -> None:
            if not seconds:
                self._progress.say(f"{path}: another process decodes the images; waiting")

        return leased(path.parent / LOCK, wait, lambda: _is_whole(path, size))

    def _decode(self, path: Path, shape: tuple[int, ...], plan: Plan, done: Callable[[int], None]) -> None:
        part = path.with_name(f".{path.name}.part")

        def written(images: int) -> None:
            done(images)
            release_pages()

        try:
            file = RowFile(part, shape[0], shape[1:])
            self._pictures.read(np.arange(shape[0]), plan, written, file.rows.numpy())
            file.flush()
            sync(part)
            shutil.rmtree(known_folder(path), ignore_errors=True)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        write_json(path.with_suffix(".json"), _marks(path))
        for other in path.parent.parent.iterdir():
            with contextlib.suppress(OSError):  # another process removes it, too
                if time.time() - other.stat().st_mtime > UNUSED:
                    shutil.rmtree(other, ignore_errors=True)


def unusable(pictures: EncodedPictures) -> dict[int, Unusable]:
    """Row -> why its image can't be used, as the method; of large sets that were looked at before, these are tried
    again, and no others are decoded."""
    folder, size = _place(pictures)
    if folder is None or size <= MOST_IN_MEMORY // 16:  # of the files; decoded images are up to so many times as large
        return pictures.unusable()
    known = {int(row): reasons for row, reasons in _read(folder / BAD).items()}
    if known or (folder / BAD).is_file():
        rows = np.asarray(sorted(known), dtype=np.int64)
        if len(pictures.keep(rows).unusable()) == len(rows):
            return {row: Unusable(pictures.items[row], *known[row]) for row in rows.tolist()}
    errors = pictures.unusable()
    with contextlib.suppress(OSError, UnicodeEncodeError):  # then all are decoded at the next start too
        write_json(folder / BAD, {str(row): [error.reason, error.allowed] for row, error in errors.items()})
    return errors


def _place(pictures: Pictures) -> tuple[Path | None, int]:
    """The folder of these images, and the bytes of the files that they are in; None where these are not known."""
    digest = hashlib.blake2b(f"{VERSION} {PIL.__version__}\n".encode(), digest_size=16)
    last, total, words = None, 0, b""
    real_folder = functools.cache(Path.resolve)
    for path, inside in pictures.origins():
        if path is None:
            return None, 0
        if path != last:
            last, real, size, changed = path, path.absolute(), 0, ""
            with contextlib.suppress(OSError):  # reading the image says why
                # Files written at once have the same times: if two links to such files change places, only the path
                # tells. The inode would tell too, but on some network disks it is another one after each mount.
                real, found = real_folder(path.parent) / path.name, path.lstat()
                if stat.S_ISLNK(found.st_mode):
                    found, real = path.stat(), path.resolve()  # in this order, because a link may lead to itself
                # The second time tells that a file was put there by mv, cp -p or rsync, which keep the first one.
                size, changed = found.st_size, f"{found.st_mtime_ns} {found.st_ctime_ns}"
            total += size
            words = os.fsencode(f"{real}\0{size} {changed} ")
        digest.update(words + os.fsencode(inside) + b"\n")
    return public.home() / FOLDER / digest.hexdigest(), total


def _is_whole(path: Path, size: int) -> bool:
    """Whether the file is as it was when it was finished."""
    try:
        return bool(path.stat().st_size == size and _marks(path) == _read(path.with_suffix(".json")))
    except OSError:
        return False


def _marks(path: Path) -> dict[str, int]:
    found = path.stat()
    return {"bytes": found.st_size, "changed_ns": found.st_mtime_ns}


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        value = read_json(path)
    except (OSError, UserError):
        return {}
    return value if isinstance(value, dict) else {}
