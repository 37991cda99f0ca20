"""Built-in ``fashion`` (10 classes) and ``rotated-fashion`` (the rotation of a garment in degrees).

Both come from builtin/fashion.npz, a subset of Fashion-MNIST (made by tools/make_fashion_subset.py; the licence is in
the same folder). Its 28x28 images get a black border to 32x32.
"""

from __future__ import annotations

import math
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.config.settings import DataSettings
from cgankd.core import rng
from cgankd.data.importing import ArrayPictures
from cgankd.data.listing import TEST, TRAIN, Ints, Listing
from cgankd.tasks import Classification, Regression

DESCRIPTION = "4,000 + 2,000 garments of Fashion-MNIST, 10 classes, 32x32 grey"
ROTATED_DESCRIPTION = "garments and shoes rotated by 0 to 90 degrees (scalar label), 32x32 grey"
CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
BORDER = 2
# Classes whose upright position is clear. A T-shirt, pullover, coat, shirt or bag is about as wide as it is high, so it
# looks much the same after a quarter turn, and its angle could not be learnt.
UPRIGHT = (1, 3, 5, 7, 9)
QUARTER = 90.0  # degrees


def listing(settings: DataSettings) -> Listing:
    """Fashion-MNIST's subset with its published classes and split."""
    images, labels = zip(*(_read(split) for split in ("train", "test")), strict=True)
    return Listing(
        where="fashion",
        pictures=ArrayPictures([image.numpy() for image in images], ["fashion", "fashion"]),
        labels=np.concatenate(labels),
        splits=np.repeat([TRAIN, TEST], [len(part) for part in labels]),
        place=lambda row: f"fashion, row {row}",
        task=Classification(CLASS_NAMES),
        notes=(f"images were given a black border of {BORDER} pixels (28x28 to 32x32)",),
    )


def rotated_listing(settings: DataSettings) -> Listing:
    """Each upright training image rotated by ``settings.turns`` angles, each test image by one.

    The label is the angle in degrees, counter-clockwise. It is a function of (seed, split, image, turn) alone, so
    more turns add views without changing others. All views of an image are one group; labelled images are chosen from
    turn 0 first.
    """
    images: list[Tensor] = []
    angles: list[Tensor] = []
    groups: list[Tensor] = []
    turns: list[Tensor] = []
    for split, count, offset in (("train", settings.turns, 0), ("test", 1, 1_000_000)):
        upright, labels = _read(split)
        base = torch.from_numpy(np.flatnonzero(np.isin(labels, UPRIGHT))).repeat(count)  # [views], turn 0 first
        turn = torch.arange(count).repeat_interleave(len(base) // count)
        angle = QUARTER * rng.uniform(settings.seed, f"rotated-fashion/{split}", base, turn)
        images.append(turned(upright[base], angle.to(torch.float32)))
        angles.append(angle.to(torch.float32))
        groups.append(base + offset)
        turns.append(turn)
    return Listing(
        where="rotated-fashion",
        pictures=ArrayPictures([part.numpy() for part in images], ["rotated-fashion"] * 2),
        labels=torch.cat(angles).numpy(),
        splits=np.repeat([TRAIN, TEST], [len(part) for part in angles]),
        place=lambda row: f"rotated-fashion, row {row}",
        groups=torch.cat(groups).numpy(),
        turn=torch.cat(turns).numpy(),
        task=Regression(0.0, QUARTER, "degrees"),
        notes=(
            "only classes with a clear upright position are used: " + ", ".join(CLASS_NAMES[k] for k in UPRIGHT),
            f"each training image was rotated by {settings.turns} angles, each test image by one (bilinear)",
        ),
    )


def turned(images: Tensor, degrees: Tensor) -> Tensor:
    """uint8 [N, 1, H, W] rotated counter-clockwise about the centre by float32 [N] degrees; outside is black."""
    out = []
    for block, angle in zip(images.split(1024), degrees.split(1024), strict=True):
        cos, sin = torch.cos(angle * math.pi / 180.0), torch.sin(angle * math.pi / 180.0)
        # The source of each target pixel (x right, y down): the target's position rotated back, clockwise.
        theta = torch.stack([cos, -sin, torch.zeros_like(cos), sin, cos, torch.zeros_like(cos)], dim=1)
        grid = F.affine_grid(theta.view(-1, 2, 3), list(block.shape), align_corners=False)
        moved = F.grid_sample(block.to(torch.float32), grid, mode="bilinear", align_corners=False)
        out.append(moved.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(out)


def _read(split: str) -> tuple[Tensor, Ints]:
    """Images uint8 [N, 1, 32, 32] and labels int64 [N]."""
    file = resources.files("cgankd.data") / "builtin" / "fashion.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        images, labels = torch.from_numpy(arrays[f"x_{split}"]), arrays[f"y_{split}"]
    return F.pad(images.unsqueeze(1), (BORDER,) * 4), labels.astype(np.int64)
