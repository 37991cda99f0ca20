"""FitNet: a regressor on a middle map of the student predicts the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.distill.base import DistillBatch, register
from cgankd.distill.maps import MapMethod, connector


@register
class FitNet(MapMethod):
    """weight mean (r(A_s) - A_t)^2, A the middle maps [B, C, H, W], the mean over all their elements.

    r: a 1x1 convolution and batch normalisation, without the benchmark's ReLU, because a map may be negative [ours].
    Trained together with the label's loss, as in distillation benchmarks (arXiv 1910.10699); the paper first trains the
    student's lower half by the hint only. Middle: the second of three pairs of maps. Defaults: weight 100 (scalars 10
    [ours]), r 1 (arXiv 1412.6550).
    """

    name = "fitnet"
    tasks = ("classification", "regression")
    where = "middle map"
    distance = "squared"
    paper = "arXiv 1412.6550"
    defaults: ClassVar[dict[str, float]] = {"weight": 100.0}
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 10.0}}

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        mine, theirs = super().taps(student, teacher)
        middle = len(mine) // 2
        return [mine[middle]], [theirs[middle]]

    def adapter(self, student: int, teacher: int) -> nn.Module:
        return connector(student, teacher)

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        ((guess, hint),) = self.maps(batch)
        return {"fitnet": self.values["weight"] * F.mse_loss(guess, hint)}
