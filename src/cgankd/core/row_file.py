"""Many rows of one shape in a memory-mapped file, so that memory does not grow with the number of rows."""

from __future__ import annotations

import math
import os
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
        self._mapped = np.memmap(path, dtype=_NUMPY[dtype], mode="r+", shape=(count, *shape))
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
            compact.replace(self.path)
        sync(self.path)
        return open_rows(self.path, self.shape, self.dtype)


def open_rows(path: Path, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    """The rows of a closed :class:`RowFile`, [N, *shape]: memory-mapped, not read."""
    count = path.stat().st_size // (math.prod(shape) * dtype.itemsize)
    if not count:
        return torch.empty(0, *shape, dtype=dtype)
    # Copy-on-write, because torch needs writable memory; the file does not change.
    return torch.from_numpy(np.memmap(path, dtype=_NUMPY[dtype], mode="c", shape=(count, *shape)))
