"""Differentiable augmentation of the discriminator's images (Zhao et al., "DiffAugment", arXiv 2006.10738).

Real and fake images are changed in the same ways, each with its own random numbers. So a discriminator with little
data can't memorise the images. No policy rotates or flips, so labels such as angles stay right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cgankd.core.shared_rows import own_rows


@dataclasses.dataclass(frozen=True)
class _Draw:
    """Random numbers for the images of this process, which are drawn for all ``count`` images.

    copies: parts of the same length, each of which the processes share.
    """

    rng: torch.Generator
    count: int
    copies: int

    def uniform(self, times: int) -> list[Tensor]:
        """``times`` numbers in [0, 1) for each image, [B, 1, 1, 1] each."""
        values = torch.rand(times, self.count, 1, 1, 1, generator=self.rng, device=self.rng.device)
        return [self._own(part) for part in values]

    def integers(self, low: int, high: int) -> Tensor:
        """From ``low`` to ``high`` - 1, [B, 1]."""
        return self._own(torch.randint(low, high, (self.count, 1), generator=self.rng, device=self.rng.device))

    def _own(self, values: Tensor) -> Tensor:
        return own_rows(values, self.copies)


def diffaugment(
    images: Tensor, policies: Sequence[str], rng: torch.Generator, count: int | None = None, copies: int = 1
) -> Tensor:
    """images: float [B, C, H, W] in [-1, 1]; rng: on the images' device. Returns images of the same shape.

    Where several processes share a batch, ``images`` are the rows of this process, of ``count`` images in all, in
    ``copies`` parts of the same length.
    """
    draw = _Draw(rng, len(images) if count is None else count, copies)
    for policy in policies:
        images = _POLICIES[policy](images, draw)
    return images


def _color(images: Tensor, draw: _Draw) -> Tensor:
    """Brightness in [-0.5, 0.5], saturation in [0, 2], contrast in [0.5, 1.5]."""
    brightness, saturation, contrast = draw.uniform(3)
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2.0 * saturation) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def _translation(images: Tensor, draw: _Draw) -> Tensor:
    """Shift by up to an eighth of the side in each direction; the empty border is black (-1).

    A shift is a product with a shifted identity matrix: exact and differentiable, with one product per axis.
    """
    height, width = images.shape[2:]
    vertical, horizontal = (_shift_matrices(side, draw, images) for side in (height, width))
    return vertical[:, None] @ (images + 1.0) @ horizontal[:, None].transpose(2, 3) - 1.0


def _shift_matrices(side: int, draw: _Draw, like: Tensor) -> Tensor:
    reach = max(1, round(side / 8))
    shift = draw.integers(-reach, reach + 1)[:, None]
    place = torch.arange(side, device=like.device)
    return (place[:, None] - place[None, :] == shift).to(like.dtype)  # [B, side, side]


def _cutout(images: Tensor, draw: _Draw) -> Tensor:
    """Cover a square of half the side with grey; its centre is uniform over the image."""
    keep = []
    for side in images.shape[2:]:
        centre = draw.integers(0, side)
        place = torch.arange(side, device=images.device)
        keep.append((place - centre + side // 4 >= 0) & (place - centre + side // 4 < side // 2))
    inside = keep[0][:, None, :, None] & keep[1][:, None, None, :]
    return images * ~inside


_POLICIES: dict[str, Callable[[Tensor, _Draw], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
