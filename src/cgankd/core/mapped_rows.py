"""Some rows of a memory-mapped file, in any order: they take the place of a tensor of images that is too large."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cgankd.core.files import replacing
from cgankd.core.hashing import tensor_digest
from cgankd.core.row_file import release_pages


class MappedRows:
    """Rows uint8 [N, ...] of a file; they are read where they are indexed, and given back to the system after that.

    stored: the mapped file, [M, ...], read only. rows: int64 [N], their places in it; None: all, in order.
    """

    dtype = torch.uint8

    def __init__(self, stored: np.memmap, rows: npt.NDArray[np.int64] | None = None) -> None:
        self.mapped = stored  # row_file gives pages back of it while it lives
        self.stored: npt.NDArray[np.uint8] = stored.view(np.ndarray)
        self.rows = np.arange(len(stored)) if rows is None else rows
        self.shape = torch.Size((len(self.rows), *stored.shape[1:]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | slice | Tensor | tuple[Any, ...]) -> Tensor:
        """A copy of one row [...], or of several [n, ...], in memory; with a tuple, of a part of each."""
        if isinstance(which, tuple):
            found = self[which[0]]
            return found[which[1:] if found.ndim < len(self.shape) else (slice(None), *which[1:])]
        copied = torch.from_numpy(np.array(self.stored[self._places(which)]))
        release_pages()
        return copied

    def take(self, which: Tensor | slice) -> MappedRows:
        """The rows at ``which`` (int64 or bool), not read."""
        return MappedRows(self.mapped, self._places(which))

    @property
    def tensor_key(self) -> str:
        """The key of a tensor with these rows."""

        def key() -> bytes:
            digest = tensor_digest(self)
            for block in blocks(self):
                digest.update(block.numpy().data)
            return digest.hexdigest().encode()

        return self.remembered("tensor_key", key).decode()

    def remembered(self, what: str, compute: Callable[[], bytes]) -> bytes:
        """``compute()``, which depends on these rows and on ``what`` alone; kept in a file, so that a later start does
        not read all rows for it."""
        name = hashlib.blake2b(what.encode() + b"\0" + self.rows.tobytes(), digest_size=16).hexdigest()
        path = known_folder(Path(str(self.mapped.filename))) / name
        try:
            return path.read_bytes()
        except OSError:
            value = compute()
        with contextlib.suppress(OSError), replacing(path) as temporary:
            temporary.write_bytes(value)
        return value

    def _places(self, which: int | slice | Tensor) -> Any:
        return self.rows[which.numpy() if isinstance(which, Tensor) else which]

    def split(self, size: int) -> Iterator[Tensor]:
        """All rows in blocks of ``size``, each of which is read when its turn comes."""
        return (self[start : start + size] for start in range(0, len(self), size))


def known_folder(path: Path) -> Path:
    """Where values are kept that were computed from a file of rows; they go with the file."""
    return path.with_suffix(".known")


BLOCK = 8_000_000  # bytes of a block of images, which may be converted to eight times as many
Images: TypeAlias = Tensor | MappedRows  # uint8 [N, C, H, W], in memory or in a file


def blocks(images: Images) -> Iterable[Tensor]:
    """All images in order, in blocks that take little memory; at least one block, which may be empty."""
    size = max(1, BLOCK // math.prod(images.shape[1:]))
    return images.split(size) if len(images) else [images[:]]


def joined(first: Images, second: Images) -> Images:
    """The images of both, without a copy where they are rows of one file."""
    if isinstance(first, MappedRows) and isinstance(second, MappedRows) and first.mapped is second.mapped:
        return MappedRows(first.mapped, np.concatenate([first.rows, second.rows]))
    return torch.cat([first[:], second[:]])


def taken(images: Images, which: Tensor | slice) -> Images:
    """The images at ``which``, without a copy where that is possible."""
    return images.take(which) if isinstance(images, MappedRows) else images[which]
