"""Differentiable augmentation: shifts, colours and cut-outs found again in the images by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cgankd.gan.diffaugment import diffaugment


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 200, channels: int = 3, size: tuple[int, int] = (16, 24)) -> torch.Tensor:
    return torch.rand(count, channels, *size, generator=rng(9)) * 1.9 - 0.95


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Black (-1) comes in."""
    height, width = image.shape[1:]
    moved = np.full_like(image, -1.0)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


def test_translation_is_a_shift_of_every_image_by_its_own_amount() -> None:
    images = pictures(40)
    found = diffaugment(images, ("translation",), rng()).numpy()
    shifts = []
    for image, moved in zip(images.numpy(), found, strict=True):
        fits = [
            (down, right)
            for down in range(-4, 5)
            for right in range(-5, 6)
            if np.allclose(shifted(image, down, right), moved, atol=1e-6)
        ]
        assert len(fits) == 1
        shifts.append(fits[0])
    downs, rights = zip(*shifts, strict=True)
    assert set(downs) == set(range(-2, 3))  # an eighth of 16
    assert set(rights) == set(range(-3, 4))  # an eighth of 24
    assert len(set(shifts)) > 15


def test_translation_passes_the_gradient_of_the_pixels_that_stay() -> None:
    images = pictures(4).requires_grad_()
    weight = torch.rand(4, 3, 16, 24, generator=rng(3))
    (diffaugment(images, ("translation",), rng()) * weight).sum().backward()
    # the gradient is the weight, shifted back: the same numbers, less those that went over the edge
    for image in range(4):
        given, found = weight[image].flatten().tolist(), images.grad[image].flatten()
        assert set(found[found != 0].tolist()) <= set(given)
        assert int((found != 0).sum()) >= 3 * 14 * 21


def test_colour_changes_mean_saturation_and_contrast_as_derived() -> None:
    # out = m + c (g' + s (x - g) - m) with g the pixel's grey and m the image's mean, both after brightness b:
    # colours x - g scale by c s, greys about the mean by c, and the mean moves by b.
    images = pictures(500).double()
    found = diffaugment(images, ("color",), rng())
    mean, grey = images.mean(dim=(1, 2, 3)), images.mean(dim=1, keepdim=True)
    mean_after, grey_after = found.mean(dim=(1, 2, 3)), found.mean(dim=1, keepdim=True)
    brightness = mean_after - mean
    about = (grey - mean[:, None, None, None]).flatten(1)
    about_after = (grey_after - mean_after[:, None, None, None]).flatten(1)
    contrast = (about * about_after).sum(1) / (about**2).sum(1)
    assert torch.allclose(about_after, contrast[:, None] * about, atol=1e-9)
    colour, colour_after = (images - grey).flatten(1), (found - grey_after).flatten(1)
    both = (colour * colour_after).sum(1) / (colour**2).sum(1)
    assert torch.allclose(colour_after, both[:, None] * colour, atol=1e-9)
    for values, low, high in [(brightness, -0.5, 0.5), (contrast, 0.5, 1.5), (both / contrast, 0.0, 2.0)]:
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=4 * (high - low) / np.sqrt(12 * 500))
    assert abs(np.corrcoef(torch.stack([brightness, contrast, both / contrast]).numpy())[0, 1]) < 0.2


def test_cutout_is_one_grey_rectangle_of_half_the_side_cut_at_the_border() -> None:
    images = pictures(400) + 2.0  # nothing in them is 0
    found = diffaugment(images, ("cutout",), rng())
    gone = (found == 0).all(dim=1)
    assert torch.equal(found[~gone[:, None].expand_as(found)], images[~gone[:, None].expand_as(found)])
    areas = []
    for mask in gone.numpy():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns)  # a full rectangle
        assert rows[-1] - rows[0] + 1 == len(rows)
        for place, side in [(rows, 16), (columns, 24)]:
            assert side // 4 <= len(place) <= side // 2
            if len(place) < side // 2:
                assert place[0] == 0 or place[-1] == side - 1
        areas.append(mask.sum())
    assert max(areas) == 8 * 12
    # a centre anywhere in 16 leaves 8 rows for 9 centres, and 4, 5, 6, 7 or 7, 6, 5 for the others: 106 / 16; for
    # 24: 12 for 13 centres, 6 .. 11 and 11 .. 7: 252 / 24
    assert np.mean(areas) == pytest.approx(106 / 16 * 252 / 24, rel=0.05)


@pytest.mark.parametrize("policies", [("color",), ("translation",), ("cutout",), ("color", "translation", "cutout")])
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_repeatability(policies: tuple[str, ...], channels: int) -> None:
    images = pictures(6, channels, (17, 20)).requires_grad_()
    found = diffaugment(images, policies, rng(4))
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert torch.equal(found, diffaugment(images, policies, rng(4)))
    assert not torch.equal(found, diffaugment(images, policies, rng(5)))
    found.sum().backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad != 0).any(dim=(1, 2, 3)).all()  # every image gets a gradient


def test_no_policy_leaves_the_images_alone() -> None:
    images = pictures(2)
    assert torch.equal(diffaugment(images, (), rng()), images)
