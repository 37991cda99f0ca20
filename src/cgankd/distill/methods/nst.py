"""Neuron selectivity transfer (NST): matches the distributions of both networks' channels, as patterns over pixels."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.distill.base import DistillBatch, register
from cgankd.distill.maps import MapMethod


@register
class NST(MapMethod):
    """weight sum_l mean_i MMD^2 between the channels of both maps of image i, for each pair l of maps.

    MMD^2 = mean k(t, t') + mean k(s, s') - 2 mean k(s, t) over all pairs of channels, k(a, b) = (a . b)^2; a
    channel is its map [H W] divided by its norm, so the widths C_s and C_t may differ. Defaults: weight 50 (scalars
    5 [ours]), r 1 (arXiv 1707.01219, polynomial kernel with d = 2, c = 0; weight as in arXiv 1910.10699).
    """

    name = "nst"
    tasks = ("classification", "regression")
    distance = "maximum mean discrepancy"
    paper = "arXiv 1707.01219"
    defaults: ClassVar[dict[str, float]] = {"weight": 50.0}
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 5.0}}

    least_pixels = 2  # with one pixel, all kernels are constant

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        distances = []
        for maps in self.maps(batch):
            s, t = (F.normalize(x.flatten(2), dim=2) for x in maps)  # [B, C, H W]
            distances.append(_kernel(t, t) + _kernel(s, s) - 2.0 * _kernel(s, t))
        return {"nst": self.values["weight"] * torch.stack(distances).sum()}


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.transpose(1, 2)).square().mean()
