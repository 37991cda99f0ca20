"""How images show themselves in a notebook and in a terminal."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import torch
from PIL import Image

from cgankd.data.imageset import ImageSet


def some(count: int = 40, side: int = 16, channels: int = 1) -> ImageSet:
    """Image n has the grey value n."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, channels, side, side).clone()
    return ImageSet(images, torch.arange(count) % 2, {"error": torch.zeros(count)}, ("cat", "<b>"))


def test_an_image_set_says_in_one_line_what_it_holds() -> None:
    assert repr(some()) == "ImageSet(40 images of 16x16x1, 2 classes cat to <b>, columns error)"
    images = ImageSet(some(3).images, torch.tensor([-1.5, 2.0, 0.25]))
    assert repr(images) == "ImageSet(3 images of 16x16x1, 3 labels -1.5 to 2)"
    times = ImageSet(some(3).images, torch.tensor([1.7e9, 1.7e9 + 20, 1.7e9 + 40], dtype=torch.float64))
    assert repr(times) == "ImageSet(3 images of 16x16x1, 3 labels 1700000000 to 1700000040)"
    days = ImageSet(some(3).images, torch.tensor([2459000.25, 2459000.5, 2459001.0], dtype=torch.float64))
    assert re.findall(r"small\">([^<]+)<", days._repr_html_()) == ["2459000.25", "2459000.5", "2459001"]
    assert repr(ImageSet(some(3).images[:0], torch.zeros(0, dtype=torch.int64))) == (
        "ImageSet(0 images of 16x16x1, 0 classes)"
    )


def test_a_notebook_shows_evenly_chosen_samples_with_escaped_labels() -> None:
    page = some(47)._repr_html_()
    pictures = [Image.open(io.BytesIO(base64.b64decode(part))) for part in re.findall(r"base64,([^\"]+)\"", page)]
    assert [int(np.asarray(picture)[0, 0]) for picture in pictures] == list(range(0, 47, 2))
    assert {picture.size for picture in pictures} == {(64, 64)}
    assert re.findall(r"small\">([^<]+)<", page) == ["cat"] * 24
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert len(page) < 20_000
    assert some(0)._repr_html_().count("<img") == 0


def test_large_images_are_reduced_and_the_grid_is_one_picture() -> None:
    page = some(2, side=500, channels=3)._repr_html_()
    assert len(page) < 3000
    grid = Image.open(io.BytesIO(some(6)._repr_png_()))
    assert grid.size == (4 * 68 - 4, 2 * 68 - 4)
    assert grid.getpixel((68 + 5, 5)) == (1, 1, 1)


def test_names_stay_with_chosen_images_and_do_not_change_the_content() -> None:
    images = some()
    assert images.take(torch.tensor([3])).names == ("cat", "<b>")
    assert images.content_key == ImageSet(images.images, images.labels, images.columns).content_key
