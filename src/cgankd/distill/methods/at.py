"""Attention transfer (AT): the student's spatial attention maps match the teacher's."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.distill.base import DistillBatch, register
from cgankd.distill.maps import MapMethod


@register
class AT(MapMethod):
    """weight sum_l mean (Q_s - Q_t)^2, the mean over images and pixels, for each pair l of maps.

    Q [B, H W]: the mean over the channels of the map's squares, divided by its Euclidean norm. Defaults: weight 1,000
    (scalars 100 [ours]), r 1 (arXiv 1612.03928, with the scale of its code and of arXiv 1910.10699).
    """

    name = "at"
    tasks = ("classification", "regression")
    distance = "squared"
    paper = "arXiv 1612.03928"
    defaults: ClassVar[dict[str, float]] = {"weight": 1000.0}
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 100.0}}

    least_pixels = 2  # with one pixel, both are always 1

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        distances = [F.mse_loss(attention(s), attention(t)) for s, t in self.maps(batch)]
        return {"at": self.values["weight"] * torch.stack(distances).sum()}


def attention(features: Tensor) -> Tensor:
    """The spatial attention of a map, as published: [B, C, H, W] -> [B, H W] of norm 1."""
    return F.normalize(features.square().mean(dim=1).flatten(1), dim=1)
