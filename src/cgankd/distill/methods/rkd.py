"""Relational knowledge distillation (RKD): matches distances between two images and angles between three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, Shape, register


@register
class RKD(Method):
    """distance mean_ij H(d_ij^s, d_ij^t) + angle mean_ijk H(a_ijk^s, a_ijk^t).

    d_ij = |f_i - f_j| over its mean in the batch; a_ijk = cosine of the angle at f_j between f_i and f_k; means over
    distinct images; H is Huber's loss, quadratic below 1. Features: penultimate, [B, D], of any two widths.
    Defaults: distance 25, angle 50, r 1 (arXiv 1904.05068).
    """

    name = "rkd"
    tasks = ("classification", "regression")
    matches = "relation"
    where = "penultimate"
    distance = "Huber"
    version = 2
    paper = "arXiv 1904.05068"
    defaults: ClassVar[dict[str, float]] = {"distance": 25.0, "angle": 50.0}
    needs_inside = True

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        return [student[-1]], [teacher[-1]]

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        (self.mine,), (self.theirs,) = student, teacher

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        count = len(batch.outputs)
        pairs, triples = count * (count - 1), count * (count - 1) * (count - 2)
        mine, theirs = batch.student_features[self.mine], batch.teacher_features[self.theirs]
        (d_s, a_s), (d_t, a_t) = (_relations(x.flatten(1), max(pairs, 1)) for x in (mine, theirs))
        # an image paired with itself gives equal values for student and teacher, and so adds 0 to the sums
        distance = F.smooth_l1_loss(d_s, d_t, reduction="sum") / max(pairs, 1)
        angle = F.smooth_l1_loss(a_s, a_t, reduction="sum") / max(triples, 1)
        return {"rkd_distance": self.values["distance"] * distance, "rkd_angle": self.values["angle"] * angle}


def _relations(features: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Distances [B, B] over their mean, and cosines [B, B, B] of angles at the first index; features [B, D].

    Computed from inner products, without a tensor [B, B, D], because a teacher's penultimate layer may have thousands
    of features. Double precision avoids cancellation for near features (Apple's GPUs have none; there it is less
    exact). [B, B, B] has 134 MB at B = 256. Equal features have distance 0 and cosine 0.
    """
    x = features - features.mean(dim=0) if features.device.type == "mps" else features.double()
    inner = x @ x.T
    square = inner.diagonal()[:, None] + inner.diagonal() - 2.0 * inner
    apart = square > 1e-12 * (inner.diagonal()[:, None] + inner.diagonal())
    # Masked before the root, because the gradient of a root at 0 is infinite, which a later mask would turn into nan.
    square = torch.where(apart, square, 1.0)
    inverse = torch.where(apart, square.rsqrt(), 0.0).to(features.dtype)
    distance = torch.where(apart, square.sqrt(), 0.0).to(features.dtype)
    # (f_i - f_j) . (f_k - f_j) = <i, k> - <i, j> - (<j, k> - <j, j>)
    from_here = inner - inner.diagonal()[:, None]  # [j, k]
    cosine = (inner - inner[:, :, None] - from_here[:, None, :]).to(features.dtype)
    mean = distance.sum() / pairs
    return distance / mean.clamp_min(1e-12), cosine * inverse[:, :, None] * inverse[:, None, :]
