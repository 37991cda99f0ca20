"""Where synthetic images go: raw uint8 on disk, memory-mapped, so memory doesn't grow with their number."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgankd.core.files import sync
from cgankd.core.hashing import content_key
from cgankd.core.store import Artifact, Work
from cgankd.data.imageset import ImageSet
from cgankd.synthesis import adjust

IMAGES = "images.u8"


class ImageStore:
    """A fixed number of slots for uint8 images [C, H, W]; on disk where a path is given, else in memory."""

    def __init__(self, path: Path | None, slots: int, shape: tuple[int, int, int]) -> None:
        self.path, self.shape = path, shape
        if path is None:
            self._array: np.ndarray = np.zeros((slots, *shape), dtype=np.uint8)
        else:
            path.unlink(missing_ok=True)  # a copy of a killed run's folder may share the file
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):  # a full disk must be an error here, not a bus error at a write
                    os.posix_fallocate(file.fileno(), 0, slots * int(np.prod(shape)))
                else:
                    file.truncate(slots * int(np.prod(shape)))
            self._array = np.memmap(path, dtype=np.uint8, mode="r+", shape=(slots, *shape))

    def put(self, slots: Tensor, images: Tensor) -> None:
        """Write images [B, C, H, W] to ``slots`` int64 [B]."""
        self._array[slots.numpy()] = images.cpu().numpy()

    def close(self, filled: Tensor) -> Tensor:
        """The filled slots (bool [slots]) as uint8 [N, C, H, W]; on disk they are compacted and synced first."""
        if self.path is None or not isinstance(self._array, np.memmap):
            return torch.from_numpy(self._array)[filled]
        self._array.flush()
        if not bool(filled.all()):
            compact = self.path.with_suffix(".compact")
            with compact.open("wb") as file:
                for rows in filled.nonzero().squeeze(1).split(10_000):
                    file.write(self._array[rows.numpy()].data)
            compact.replace(self.path)
        sync(self.path)
        return open_images(self.path, self.shape)


def open_images(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """The images a store wrote to ``path``: uint8 [N, C, H, W], mapped, not read."""
    count = path.stat().st_size // int(np.prod(shape))
    if not count:
        return torch.empty(0, *shape, dtype=torch.uint8)
    # copy-on-write: torch wants memory it could write to, and nothing reaches the file
    return torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", shape=(count, *shape)))


@dataclasses.dataclass(frozen=True)
class StoredFakes:
    """The images that a stage kept by :func:`keep_fakes`. replace: what becomes of their labels."""

    artifact: Artifact
    replace: str = "none"

    @property
    def content_key(self) -> str:
        return content_key(self.artifact.content_key, self.replace)

    def open(self) -> ImageSet:
        """Mapped into memory, not read."""
        columns = self.artifact.tensors("columns")
        channels, height, width = self.artifact.summary["shape"]
        images = open_images(self.artifact.folder / IMAGES, (channels, height, width))
        return adjust.relabelled(ImageSet(images, columns.pop("labels"), columns), self.replace)


def keep_fakes(work: Work, fakes: ImageSet) -> dict[str, Any]:
    """Write labels and columns beside the images, which lie in their file; what belongs into the summary."""
    work.save("columns", {"labels": fakes.labels, **fakes.columns})
    return {"shape": list(fakes.images.shape[1:])}
