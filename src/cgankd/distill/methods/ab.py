"""Activation boundaries (AB): the student's neurons are active where the teacher's are, by a margin."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.distill.base import DistillBatch, register
from cgankd.distill.maps import MapMethod, connector


@register
class AB(MapMethod):
    """weight sum_l 2^(l - L) mean_i sum of relu(margin - s)^2 where t > 0, and of relu(margin + s)^2 elsewhere.

    l: pairs of maps, L the deepest; the sum is over the map's channels and pixels; s: the student's map after a 1x1
    convolution and batch normalisation, so before activation; t: the teacher's map, before or after ReLU, which does
    not move the boundary at 0. If a map after ReLU is averaged down, a mean is above 0 if any of its pixels is. As
    published, only this term counts in the share ``alone`` of the training, and only the labels after it; with alone 0
    both count all the time. Defaults: weight .003 (scalars .0003 [ours]), margin 1, alone 1/2 [ours], r 1 (arXiv
    1811.03233, scale as in arXiv 1910.10699).
    """

    name = "ab"
    tasks = ("classification", "regression")
    distance = "squared hinge"
    paper = "arXiv 1811.03233"
    defaults: ClassVar[dict[str, float]] = {"weight": 0.003, "margin": 1.0, "alone": 0.5}
    version = 2  # version 1 also used the labels all the time
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 0.0003}}

    def adapter(self, student: int, teacher: int) -> nn.Module:
        return connector(student, teacher)

    def label_share(self, done: float) -> float:
        return 0.0 if done < self.values["alone"] else self.label_weight

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        if 0.0 < self.values["alone"] <= batch.done:
            return {"ab": batch.outputs.new_zeros(())}
        terms = []
        for above, (s, t) in enumerate(reversed(self.maps(batch))):
            side = torch.where(t > 0, 1.0, -1.0)
            missed = F.relu(self.values["margin"] - side * s).square()
            terms.append(0.5**above * missed.sum() / len(s))
        return {"ab": self.values["weight"] * torch.stack(terms).sum()}
