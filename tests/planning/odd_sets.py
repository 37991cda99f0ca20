"""Odd data sets as people have them. Each function fills an empty folder and returns the source."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

_seeds = itertools.count()


def save(path: Path, seed: int | None = None, size: tuple[int, int] = (24, 24), mode: str = "L") -> None:
    """An image of noise; seed: of equal seeds equal images, None: another one each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    rng = np.random.default_rng([0, next(_seeds)] if seed is None else [1, seed])
    pixels = rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)


def classes(folder: Path, counts: dict[str, int], name: str = "{}.png") -> Path:
    for kind, count in counts.items():
        for number in range(count):
            save(folder / kind / name.format(number))
    return folder


def table(header: str, line: str, count: int = 120, *, value: Callable[[int], object]) -> Callable[[Path], Path]:
    """Images with metadata.csv; line: of {n} and {v}, the value of image n."""

    def make(folder: Path) -> Path:
        for n in range(count):
            save(folder / f"{n}.png")
        lines = [header, *(line.format(n=n, v=value(n)) for n in range(count))]
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    return make


def mixed_sizes_and_modes(folder: Path) -> Path:
    for n in range(60):
        save(folder / "ab"[n % 2] / f"{n}.png", size=(40 + n % 7, 50 + n % 5), mode=["L", "RGBA", "RGB"][n % 3])
    return folder


def broken_file(folder: Path) -> Path:
    path = classes(folder, {"a": 30, "b": 30}) / "a" / "7.png"
    path.write_bytes(path.read_bytes()[:200])
    return folder


def tracks(folder: Path) -> Path:
    for kind, track, frame in itertools.product(("left", "right"), range(10), range(8)):
        save(folder / kind / f"track{track:02}_{frame:04}.jpg")
    return folder


def twins_across_splits(folder: Path) -> Path:
    for split, count in (("train", 60), ("test", 30)):
        for n in range(count):
            save(folder / split / "ab"[n % 2] / f"{n}.png", n if split == "train" or n < 7 else 900 + n)
    return folder


def hdf5_with_subjects(folder: Path) -> Path:
    with h5py.File(folder / "set.h5", "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 256, (90, 3, 24, 24), dtype=np.uint8)
        file["labels"] = np.random.default_rng(1).uniform(0, 5.5, 90)
        file["subject"] = np.arange(90) // 3
    return folder / "set.h5"


def npz_without_test(folder: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (90, 24, 24), dtype=np.uint8)
    np.savez(folder / "set.npz", x_train=images, y_train=np.arange(90) % 3)
    return folder / "set.npz"


def without_labels(folder: Path) -> Path:
    for n in range(30):
        save(folder / f"{n}.png")
    return folder


def competition(folder: Path) -> Path:
    """Numbers of images in a table, without their folder and suffix."""
    classes(folder, {"train_images": 30})
    lines = [f"{path.stem},{number / 7:.2f},c{number % 4}" for number, path in enumerate(sorted(folder.rglob("*.png")))]
    (folder / "train.csv").write_text("\n".join(["id,age,clinic", *lines]))
    return folder / "train.csv"


def german(folder: Path) -> Path:
    """A counter, names of images, and decimal commas, as a German Excel writes them."""
    classes(folder, {"bilder": 30})
    lines = [f"{number};{path.name};{number},5;ok" for number, path in enumerate(sorted(folder.rglob("*.png")))]
    (folder / "messung.csv").write_text("\n".join(["Nr;Bild;Winkel;Bemerkung", *lines]))
    return folder / "messung.csv"


def table_of_another_name(folder: Path) -> Path:
    classes(folder, {"images": 30})
    (folder / "labels.csv").write_text("filename,age\n0.png,20\n")
    return folder
