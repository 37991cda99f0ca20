"""A first look at a data set: counts, the label histogram, a few images of each label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cgankd.core.groups import in_groups
from cgankd.data.imageset import ImageSet, Splits
from cgankd.data.split import rank_within
from cgankd.tasks import Task

PER_BIN = 8


def describe(splits: Splits) -> dict[str, Any]:
    """Counts and label histograms of every split, as JSON."""
    parts = {name: getattr(splits, name) for name in ("train", "pool", "val", "test")}
    names = splits.task.bins(splits.train.labels)[0]
    histogram = {
        name: torch.bincount(splits.task.bins(part.labels)[1], minlength=len(names)).tolist()
        for name, part in parts.items()
    }
    return {
        "name": splits.name,
        "counts": {name: len(part) for name, part in parts.items()},
        "channels": splits.train.channels,
        "size": list(splits.train.size),  # height, width
        "notes": list(splits.notes),
        "plan": None if splits.plan is None else splits.plan._asdict(),
        "bins": names,
        "histogram": histogram,
    }


def grid(images: Tensor, row: Tensor, gap: int = 2) -> Tensor:
    """Images uint8 [N, C, H, W] as one picture uint8 [C, H', W'], white between them. row: int64 [N], of each image."""
    column = torch.from_numpy(rank_within(row.numpy()))
    _, channels, height, width = images.shape
    rows, columns = int(row.max()) + 1, int(column.max()) + 1
    picture = torch.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=torch.uint8)
    for image, top, left in zip(
        images.cpu(), (row * (height + gap)).tolist(), (column * (width + gap)).tolist(), strict=True
    ):
        picture[:, top : top + height, left : left + width] = image
    return picture


def examples(images: ImageSet, task: Task, per_bin: int = PER_BIN) -> dict[str, Tensor]:
    """The first ``per_bin`` images of each class or label bin, ordered by bin: "images", "labels" and "bin"."""
    names, place = task.bins(images.labels)
    rows = torch.cat([inside[:per_bin] for inside in in_groups(torch.arange(len(place)), place, len(names))])
    chosen = images.take(rows)
    return {"images": chosen.images[:], "labels": chosen.labels, "bin": place[rows]}
