"""The picture of ``cgankd data``: rows, names, many classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgankd.report.sheet import CELL, GAP, SMALL_CELL, sheet


def draw(path: Path, classes: int, per_class: int = 8, channels: int = 1) -> np.ndarray:
    """Images of 16x16 pixels, those of class n of grey value n; the picture, uint8 [H, W, 3]."""
    bins = torch.arange(classes).repeat_interleave(per_class)
    images = bins.to(torch.uint8)[:, None, None, None].expand(-1, channels, 16, 16)
    sheet({"images": images, "bin": bins}, [f"class {n}" for n in range(classes)], path)
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_row_holds_the_images_of_its_class(tmp_path: Path, channels: int) -> None:
    pixels = draw(tmp_path / "few.png", 3, per_class=2, channels=channels)
    side = CELL - GAP
    for row in range(3):
        top = row * CELL + GAP
        for right in (GAP, GAP + CELL):
            square = pixels[top : top + side, pixels.shape[1] - right - side : pixels.shape[1] - right]
            assert (square == row).all()
        name = pixels[top : top + side, : pixels.shape[1] - GAP - 2 * CELL]
        assert name.min() < 100 < name.max()  # black on white


def test_an_empty_class_has_no_row_and_signs_in_names_are_text(tmp_path: Path) -> None:
    images = {"images": torch.zeros(2, 1, 16, 20, dtype=torch.uint8), "bin": torch.tensor([0, 2])}
    sheet(images, ["$5 a_b", "no image", "$5$ {x}^2"], tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").height == 2 * CELL + GAP


def test_two_hundred_classes_make_about_a_square(tmp_path: Path) -> None:
    pixels = draw(tmp_path / "many.png", 200)
    height, width = pixels.shape[:2]
    assert 0.5 < height / width < 2
    colours = {tuple(pixel) for pixel in pixels[GAP + 2 :: SMALL_CELL].reshape(-1, 3)}
    assert {(n, n, n) for n in range(200)} <= colours


@pytest.mark.parametrize("classes", [1, 2, 7, 25, 26, 61])
def test_any_number_of_classes_fits(tmp_path: Path, classes: int) -> None:
    assert draw(tmp_path / f"{classes}.png", classes, per_class=1).shape[2] == 3
