"""Probabilistic knowledge transfer (PKT): matches similarities between images, as probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, Shape, register


@register
class PKT(Method):
    """weight mean_i KL(p^t_i || p^s_i), p_ij = K_ij / sum_k K_ik, K_ij = (cos(f_i, f_j) + 1) / 2.

    Features: penultimate, [B, D], of any two widths. Default: weight 30,000 / 64, which is the published 30,000 on
    the mean over B x B at its B = 64; r 1 (arXiv 1803.10837).
    """

    name = "pkt"
    tasks = ("classification", "regression")
    matches = "relation"
    where = "penultimate"
    distance = "KL"
    paper = "arXiv 1803.10837"
    defaults: ClassVar[dict[str, float]] = {"weight": 30_000 / 64}
    needs_inside = True

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        return [student[-1]], [teacher[-1]]

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        (self.mine,), (self.theirs,) = student, teacher

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        mine, theirs = batch.student_features[self.mine], batch.teacher_features[self.theirs]
        s, t = (log_conditional(cosine_kernel(x.flatten(1))) for x in (mine, theirs))
        return {"pkt": self.values["weight"] * F.kl_div(s, t, reduction="batchmean", log_target=True)}


def cosine_kernel(features: Tensor) -> Tensor:
    """(cos + 1) / 2 for each pair of rows: [B, D] -> [B, B]."""
    unit = F.normalize(features, dim=1)
    return (unit @ unit.T + 1.0) / 2.0


def log_conditional(kernel: Tensor) -> Tensor:
    """log p_ij = log(K_ij / sum_k K_ik): [B, B] -> [B, B]."""
    logs = torch.log(kernel.clamp_min(1e-6))  # avoids log 0 for features of opposite directions
    return logs - logs.logsumexp(dim=1, keepdim=True)
