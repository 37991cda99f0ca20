"""Many rows of one shape in a memory-mapped file, so that memory does not grow with the number of rows."""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import os
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgankd.core.files import sync

_NUMPY = {
    torch.uint8: np.uint8,
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.int64: np.int64,
    torch.bool: np.bool_,
}


class RowFile:
    """A fixed number of rows of ``shape``, all 0 at first; on disk where a path is given, else in memory.

    resume: continue with the file of a killed process if it exists in full; ``resumed`` says whether it did.
    """

    def __init__(
        self,
        path: Path | None,
        count: int,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.uint8,
        *,
        resume: bool = False,
    ) -> None:
        self.path, self.shape, self.dtype, self.resumed = path, shape, dtype, False
        self._mapped: np.memmap | None = None
        size = count * math.prod(shape) * dtype.itemsize
        if path is None or not size:  # an empty file can't be memory-mapped
            self.rows = torch.zeros(count, *shape, dtype=dtype)
            if path is not None:
                path.write_bytes(b"")
            return
        self.resumed = resume and path.is_file() and path.stat().st_size == size
        if not self.resumed:
            path.unlink(missing_ok=True)  # never overwritten: a copy of the folder may share it by a hard link
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):  # so that a full disk is an error here, not a bus error later
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
        self._mapped = _map(path, "r+", (count, *shape), dtype)
        self.rows = torch.from_numpy(self._mapped)

    def flush(self) -> None:
        """Flush the rows to the disk."""
        if self._mapped is not None:
            self._mapped.flush()

    def close(self, filled: Tensor) -> Tensor:
        """Keep only the ``filled`` rows (bool [count]) in the file, and return them."""
        if self.path is None or self._mapped is None:
            return self.rows[filled]
        self.flush()
        if not bool(filled.all()):
            compact = self.path.with_suffix(".compact")
            with compact.open("wb") as file:
                for block in filled.nonzero().squeeze(1).split(10_000):
                    file.write(self._mapped[block.numpy()].data)
                    release_pages()
            compact.replace(self.path)
        sync(self.path)
        return open_rows(self.path, self.shape, self.dtype)


def open_rows(path: Path, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    """The rows of a closed :class:`RowFile`, [N, *shape]: memory-mapped, not read."""
    count = path.stat().st_size // (math.prod(shape) * dtype.itemsize)
    if not count:
        return torch.empty(0, *shape, dtype=dtype)
    # Copy-on-write, because torch needs writable memory; the file does not change.
    return torch.from_numpy(_map(path, COPY_ON_WRITE, (count, *shape), dtype))


def map_rows(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """The rows of a file of uint8, [N, *shape]: memory-mapped, read only, not read. The file must not be empty."""
    return _map(path, "r", (path.stat().st_size // math.prod(shape), *shape), torch.uint8)


# --- resident pages -------------------------------------------------------------------------------------------------

COPY_ON_WRITE = "c"
MOST_RESIDENT = 256_000_000  # bytes of mapped files that are read or written before their pages are given back
STATM, PAGEMAP = Path("/proc/self/statm"), Path("/proc/self/pagemap")  # of Linux
# of an entry of PAGEMAP, which is 64 bits for each page
PRESENT, SWAPPED, OF_A_FILE = (np.uint64(1 << bit) for bit in (63, 62, 61))


class _Mappings:
    """The mapped files of this process. floor: resident bytes of files when pages were last given back."""

    def __init__(self) -> None:
        self.open: list[weakref.ref[np.memmap]] = []
        self.floor: int | None = None


_mappings = _Mappings()


def _map(path: Path, mode: str, shape: tuple[int, ...], dtype: torch.dtype) -> np.memmap:
    mapped = np.memmap(path, dtype=_NUMPY[dtype], mode=mode, shape=shape)  # type: ignore[call-overload]
    if _mappings.floor is None:
        _mappings.floor = _resident()
    _mappings.open = [other for other in _mappings.open if other() is not None]
    _mappings.open.append(weakref.ref(mapped))
    return mapped  # type: ignore[no-any-return]


def release_pages() -> None:
    """Give pages of mapped files back to the system once ``MOST_RESIDENT`` bytes of files have become resident.

    Loops over many rows call it. Without it, the resident memory of the process grows until it holds the whole file.
    Content does not change: pages stay in the system's cache, and are mapped again when they are needed. A file whose
    rows the program has changed in memory alone keeps its pages. On other systems than Linux nothing happens.
    """
    floor = _mappings.floor
    if floor is None or _resident() - floor < MOST_RESIDENT:
        return
    for reference in _mappings.open:
        mapped = reference()
        if mapped is None or (mapped.mode == COPY_ON_WRITE and _changed_in_memory(mapped)):
            continue
        memory: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        memory.madvise(mmap.MADV_DONTNEED)
    _mappings.floor = _resident()


def _resident() -> int:
    """Bytes of mapped files, libraries too, that are resident; 0 where this is not known."""
    with contextlib.suppress(OSError):
        return int(STATM.read_text().split()[2]) * mmap.PAGESIZE
    return 0


def _changed_in_memory(mapped: np.memmap) -> bool:
    """Whether the mapping has pages of its own, which no file holds; true where this is not known."""
    first, pages = mapped.ctypes.data // mmap.PAGESIZE, math.ceil(mapped.nbytes / mmap.PAGESIZE)
    try:
        with PAGEMAP.open("rb", buffering=0) as file:
            file.seek(8 * first)
            entries = np.frombuffer(_exactly(file, 8 * pages), np.uint64)
    except OSError:
        return True
    own = (entries & PRESENT != 0) & (entries & OF_A_FILE == 0)
    return len(entries) < pages or bool((own | (entries & SWAPPED != 0)).any())


def _exactly(file: io.FileIO, size: int) -> bytes:
    """The next ``size`` bytes, or all that are left; the system gives a part of them at a time."""
    parts = list[bytes]()
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
