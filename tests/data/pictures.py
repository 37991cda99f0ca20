"""Small real image files with known content, and what is read of them, for the tests of this folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.imageset import Splits
from cgankd.data.sources import load


def noise(seed: int, height: int = 16, width: int = 16, channels: int = 3) -> np.ndarray:
    """uint8 [H, W, 3] or [H, W], another for every seed."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_png(path: Path, seed: int, height: int = 16, width: int = 16, channels: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, height, width, channels)).save(path)
    return path


def class_folders(folder: Path, counts: dict[str, int], seed: int = 0, **shape: int) -> Path:
    """``folder``/class/number.png, as many of each class as said."""
    for name, count in counts.items():
        for number in range(count):
            seed += 1
            write_png(folder / name / f"{number:03}.png", seed, **shape)
    return folder


def metadata(folder: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = ("file_name", "label")) -> Path:
    """``folder``/metadata.csv with these rows, and an image for every first field that has none."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [list(map(str, row)) for row in rows]
    for number, row in enumerate(rows):
        if row and not (folder / row[0]).exists():
            write_png(folder / row[0], 1000 + number)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([list(header), *rows])
    return folder


def read(path: Path, **settings: object) -> Splits:
    return load(DataSettings.model_validate({"source": str(path), **settings}))


def refuses(message: str, path: Path, **settings: object) -> None:
    """The source is refused with one sentence that matches."""
    with pytest.raises(UserError, match=message) as caught:
        read(path, **settings)
    assert "\n" not in str(caught.value)


def sizes(splits: Splits) -> list[int]:
    return [len(part) for part in (splits.train, splits.val, splits.test)]
