"""EfficientNet-Lite0's way with images: grey ones, small ones, and a normalisation that belongs to its weights."""

import pytest
import torch

from cgankd.nets import zoo
from cgankd.nets.families.efficientnet_lite import side_lengths


def new(channels, size):
    torch.manual_seed(0)
    return zoo.create("efficientnet_lite0", channels, 10, size).eval()


@torch.no_grad()
def test_grey_images_are_colour_ones_with_three_equal_channels():
    images = torch.rand(2, 1, 32, 32)
    assert torch.allclose(new(1, (32, 32))(images), new(3, (32, 32))(images.repeat(1, 3, 1, 1)), atol=1e-5)


def doubled(images):
    """Rows and columns between those that are there, by linear interpolation: 1/4 and 3/4 of the neighbours."""
    for dim in (2, 3):
        count = images.shape[dim]
        before = images.index_select(dim, (torch.arange(count) - 1).clamp(min=0))
        after = images.index_select(dim, (torch.arange(count) + 1).clamp(max=count - 1))
        pair = torch.stack([0.25 * before + 0.75 * images, 0.75 * images + 0.25 * after], dim=dim + 1)
        images = pair.flatten(dim, dim + 1)
    return images


@torch.no_grad()
def test_small_images_are_enlarged_between_their_pixels():
    images = torch.rand(2, 3, 32, 48)
    assert side_lengths(32, 48) == (64, 96)
    assert torch.allclose(new(3, (32, 48))(images), new(3, (64, 96))(doubled(images)), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (64, 64), (65, 100), (224, 224), (16, 40)])
def test_sides_are_divisible_and_never_smaller_than_the_image(size):
    sides = side_lengths(*size)
    assert all(side % 32 == 0 and side >= max(64, length) for side, length in zip(sides, size, strict=True))
    assert side_lengths(*sides) == sides


def test_its_normalisation_is_its_weights_own():
    network = new(1, (32, 32))
    assert not zoo.fix_normalisation(network, torch.tensor([0.1]), torch.tensor([0.9]))
    assert not any(name.startswith("normalise") for name in network.state_dict())
    assert network.normalise(torch.tensor([0.0, 127 / 255, 1.0]).view(1, 3, 1, 1)).flatten().tolist() == (
        pytest.approx([-127 / 128, 0.0, 1.0])
    )
