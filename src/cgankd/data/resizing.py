"""Imported images in another size, by the resampling that import uses: Pillow's bilinear with antialias."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cgankd.core.mapped_rows import Images, blocks
from cgankd.data.imageset import ImageSet
from cgankd.data.showing import picture


def resized(images: Images, size: tuple[int, int]) -> Tensor:
    """uint8 [N, C, H, W], 1 or 3 channels -> the same images as uint8 [N, C, *size]; size is (height, width)."""
    if tuple(images.shape[2:]) == size:
        return images if isinstance(images, Tensor) else images[:]
    wanted = torch.empty(len(images), images.shape[1], *size, dtype=torch.uint8)
    for place, pixels in enumerate(pixels for block in blocks(images) for pixels in block.cpu().numpy()):
        drawn = np.array(picture(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
        wanted[place] = torch.from_numpy(drawn[None] if len(pixels) == 1 else drawn.transpose(2, 0, 1))
    return wanted


def resized_set(images: ImageSet, size: tuple[int, int]) -> ImageSet:
    """The same labels and columns, with images of this size."""
    return images if images.size == size else dataclasses.replace(images, images=resized(images.images, size))
