"""Similarity-preserving distillation (SP): images with similar teacher features get similar student features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, Shape, register


@register
class SP(Method):
    """weight / B^2 |G_s - G_t|^2, G = the rows of Q Q' divided by their norms, Q = the maps as rows [B, C H W].

    Q is the last feature map of each network, or the penultimate layer if there is none; sizes may differ. Rows have
    norm 1, so their entries shrink with B, and the loss falls like 1 / B, as published. Default: weight 3,000, r 1
    (arXiv 1907.09682).
    """

    name = "sp"
    tasks = ("classification", "regression")
    matches = "relation"
    where = "last map"
    distance = "squared"
    paper = "arXiv 1907.09682"
    defaults: ClassVar[dict[str, float]] = {"weight": 3000.0}
    needs_inside = True

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        return list(student[-2:][:1]), list(teacher[-2:][:1])

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        (self.mine,), (self.theirs,) = student, teacher

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        mine, theirs = batch.student_features[self.mine], batch.teacher_features[self.theirs]
        s, t = (_similarity(x.flatten(1)) for x in (mine, theirs))
        return {"sp": self.values["weight"] * F.mse_loss(s, t)}


def _similarity(features: Tensor) -> Tensor:
    return F.normalize(features @ features.T, dim=1)
