"""Inputs as no reader wants them, by name: how each is made, and whether it is refused or how it must be read.

A case fills an empty folder and returns the source. It is either refused, with a sentence that holds the text given
here, or read, and then its check looks at what came out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cgankd.data.imageset import Splits

Make = Callable[[Path], Path]
Check = Callable[[Splits], None]
SIDE = 16


@dataclasses.dataclass(frozen=True)
class Case:
    """make: fills a folder, returns the source. refused: part of the sentence; empty: the source is read.

    check: what must be true of what was read. settings: of the data section.
    """

    make: Make
    refused: str = ""
    check: Check | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        assert bool(self.refused) != (self.check is not None), "a case is refused or read, and a reading is checked"


@functools.cache
def good_png(number: int) -> bytes:
    """A colour image of noise, another for each number."""
    import io

    stream = io.BytesIO()
    pixels = np.random.default_rng([7, number]).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def good_folders(folder: Path, names: tuple[str, str] = ("a", "b"), each: int = 10) -> Path:
    """Two class folders of colour images without faults."""
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            (folder / name / f"{number:02}.png").write_bytes(good_png(100 * place + number))
    return folder


def total(splits: Splits) -> int:
    return len(splits.pool) + len(splits.val) + len(splits.test)


def every_image(splits: Splits) -> np.ndarray:
    """uint8 [N, C, H, W], of all splits."""
    return torch.cat([splits.pool.images, splits.val.images, splits.test.images]).numpy()


def every_label(splits: Splits) -> list[float]:
    return torch.cat([splits.pool.labels, splits.val.labels, splits.test.labels]).tolist()


def holds(expected: np.ndarray, tolerance: int = 0, count: int = 21) -> Check:
    """One of the images is ``expected``, uint8 [H, W] or [H, W, 3], up to ``tolerance`` at each pixel."""
    wanted = expected.astype(int)
    wanted = np.repeat(wanted[None], 3, axis=0) if wanted.ndim == 2 else wanted.transpose(2, 0, 1)

    def check(splits: Splits) -> None:
        images = every_image(splits)
        assert len(images) == count
        apart = np.abs(images.astype(int) - wanted).max(axis=(1, 2, 3))
        assert apart.min() <= tolerance, f"no image is the expected one; the nearest is {apart.min()} apart"

    return check


def has(count: int, note: str = "", classes: tuple[str, ...] | None = None) -> Check:
    """``count`` images were read, one of the notes holds ``note``, and the classes have these names."""

    def check(splits: Splits) -> None:
        assert total(splits) == count
        assert any(note in sentence for sentence in splits.notes), splits.notes
        if classes is not None:
            assert splits.task.answer_names == classes

    return check


def labels_are(*expected: float, task: str = "regression") -> Check:
    """The distinct labels, in order, are these numbers."""

    def check(splits: Splits) -> None:
        assert splits.task.name == task
        assert sorted(set(every_label(splits))) == list(expected)

    return check
