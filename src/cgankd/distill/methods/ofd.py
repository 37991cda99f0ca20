"""Overhaul of feature distillation (OFD): maps before activation, with a margin ReLU and a partial L2 distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from cgankd.core.blockwise import blockwise
from cgankd.distill.base import DistillBatch, Preparation, Shape, register
from cgankd.distill.maps import MapMethod, connector


@register
class OFD(MapMethod):
    """weight sum_l 2^(l - L) mean_i sum d(r(A_s), max(A_t, m_c)), d(s, t) = (s - t)^2, but 0 if s <= t <= 0.

    l: pairs of maps, L the deepest; the sum is over the map's channels c and pixels; r: a 1x1 convolution and batch
    normalisation; m_c: the mean of the channel's negative values. The paper derives m_c from the batch normalisation
    before the map. Here it is measured on the teacher's maps of the first ``batches`` batches, because a map may follow
    another layer [ours]. Maps after activation have no negative values: then m_c = 0, and only the partial distance
    remains. Defaults: weight .001 (scalars .0001 [ours]), batches 16, r 1 (arXiv 1904.01866).
    """

    name = "ofd"
    tasks = ("classification", "regression")
    distance = "squared, partial"
    paper = "arXiv 1904.01866"
    defaults: ClassVar[dict[str, float]] = {"weight": 0.001, "batches": 16.0}
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 0.0001}}

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        super().build(student, teacher)
        self.margins = [f"margin{place}" for place in range(len(self.pairs))]
        for margin, shape in zip(self.margins, teacher.values(), strict=True):
            self.register_buffer(margin, torch.zeros(shape[0], 1, 1))

    def adapter(self, student: int, teacher: int) -> nn.Module:
        return connector(student, teacher)

    def prepare(self, preparation: Preparation) -> None:
        def negatives(step: Tensor) -> dict[str, Tensor]:
            """Sum and number of each channel's negative values in one batch, [1, 2, C] by margin."""
            features = preparation.teacher(preparation.images(int(step)))[1]
            below = [torch.stack([m.clamp_max(0.0), (m < 0).float()]) for m in self.teacher_maps(features)]
            return {name: b.sum(dim=(1, 3, 4))[None] for name, b in zip(self.margins, below, strict=True)}

        batches = int(self.values["batches"])
        for margin, totals in blockwise(preparation.work, "ofd: margins", batches, negatives, 1).items():
            amount, number = totals.sum(dim=0)
            self.get_buffer(margin).copy_((amount / number.clamp_min(1.0))[:, None, None])

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        terms = []
        places = list(zip(self.maps(batch), self.margins, strict=True))
        for above, ((s, t), margin) in enumerate(reversed(places)):
            target = torch.maximum(t, self.get_buffer(margin))
            counts = (s > target) | (target > 0)
            terms.append(0.5**above * ((s - target).square() * counts).sum() / len(s))
        return {"ofd": self.values["weight"] * torch.stack(terms).sum()}
