"""Differentiable augmentation of the discriminator's images (Zhao et al., "DiffAugment", arXiv 2006.10738).

Real and fake images are changed in the same ways, each with its own random numbers. So a discriminator with little
data can't memorise the images. No policy rotates or flips, so labels such as angles stay right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def diffaugment(images: Tensor, policies: Sequence[str], rng: torch.Generator) -> Tensor:
    """images: float [B, C, H, W] in [-1, 1]; rng: on the images' device. Returns images of the same shape."""
    for policy in policies:
        images = _POLICIES[policy](images, rng)
    return images


def _color(images: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness in [-0.5, 0.5], saturation in [0, 2], contrast in [0.5, 1.5]."""
    draw = torch.rand(3, len(images), 1, 1, 1, generator=rng, device=images.device)
    images = images + (draw[0] - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2.0 * draw[1]) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (draw[2] + 0.5) + mean


def _translation(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shift by up to an eighth of the side in each direction; the empty border is black (-1).

    A shift is a product with a shifted identity matrix: exact and differentiable, with one product per axis.
    """
    count, _, height, width = images.shape
    vertical = _shift_matrices(count, height, rng, images)
    horizontal = _shift_matrices(count, width, rng, images)
    return vertical[:, None] @ (images + 1.0) @ horizontal[:, None].transpose(2, 3) - 1.0


def _shift_matrices(count: int, side: int, rng: torch.Generator, like: Tensor) -> Tensor:
    reach = max(1, round(side / 8))
    shift = torch.randint(-reach, reach + 1, (count, 1, 1), generator=rng, device=like.device)
    place = torch.arange(side, device=like.device)
    return (place[:, None] - place[None, :] == shift).to(like.dtype)  # [B, side, side]


def _cutout(images: Tensor, rng: torch.Generator) -> Tensor:
    """Cover a square of half the side with grey; its centre is uniform over the image."""
    count, _, height, width = images.shape
    keep = []
    for side in (height, width):
        centre = torch.randint(0, side, (count, 1), generator=rng, device=images.device)
        place = torch.arange(side, device=images.device)
        keep.append((place - centre + side // 4 >= 0) & (place - centre + side // 4 < side // 2))
    inside = keep[0][:, None, :, None] & keep[1][:, None, None, :]
    return images * ~inside


_POLICIES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
