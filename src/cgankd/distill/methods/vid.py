"""Variational information distillation (VID): maximises the likelihood of the teacher's maps, given the student's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.distill.base import DistillBatch, Shape, register
from cgankd.distill.maps import MapMethod

FLOOR, FIRST = 1e-5, 5.0  # the smallest and the initial variance


@register
class VID(MapMethod):
    """weight sum_l mean 1/2 [(A_t - mu(A_s))^2 / v_c + log v_c], the mean over images, channels c and pixels.

    mu: three 1x1 convolutions of the teacher's width, with ReLU between them; v_c = softplus(a_c) + 1e-5 is the learnt
    variance of each of the teacher's channels, initially 5. Defaults: weight 1 (scalars .1 [ours]), r 1 (arXiv
    1904.05835).
    """

    name = "vid"
    tasks = ("classification", "regression")
    distance = "Gaussian likelihood"
    paper = "arXiv 1904.05835"
    defaults: ClassVar[dict[str, float]] = {"weight": 1.0}
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 0.1}}

    def adapter(self, student: int, teacher: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(student, teacher, 1), nn.ReLU(),
            nn.Conv2d(teacher, teacher, 1), nn.ReLU(),
            nn.Conv2d(teacher, teacher, 1),
        )  # fmt: skip

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        super().build(student, teacher)
        inverse = math.log(math.expm1(FIRST - FLOOR))  # of softplus
        self.raw = nn.ParameterList(torch.full((shape[0], 1, 1), inverse) for shape in teacher.values())

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        terms = []
        for (mean, t), raw in zip(self.maps(batch), self.raw, strict=True):
            variance = F.softplus(raw) + FLOOR  # [C, 1, 1]
            terms.append(0.5 * ((t - mean).square() / variance + variance.log()).mean())
        return {"vid": self.values["weight"] * torch.stack(terms).sum()}
