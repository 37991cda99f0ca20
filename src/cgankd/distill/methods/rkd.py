"""Relational knowledge distillation (RKD): matches distances between two images and angles between three."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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
        student, teacher = (_relations(x.flatten(1), max(pairs, 1)) for x in (mine, theirs))
        # an image paired with itself gives equal values for student and teacher, and so adds 0 to the sums
        distance = F.smooth_l1_loss(student.distance, teacher.distance, reduction="sum") / max(pairs, 1)
        angle: Tensor = _AngleGaps.apply(student.inner, student.inverse, teacher.inner, teacher.inverse)  # type: ignore[no-untyped-call]
        return {
            "rkd_distance": self.values["distance"] * distance,
            "rkd_angle": self.values["angle"] * angle / max(triples, 1),
        }


@dataclasses.dataclass(frozen=True)
class _Relations:
    """Of the features of B images: inner products in double precision, distances over their mean, 1 / distance.

    All are [B, B]. Equal features have distance 0, and 0 in place of its inverse.
    """

    inner: Tensor
    distance: Tensor
    inverse: Tensor


def _relations(features: Tensor, pairs: int) -> _Relations:
    """The relations of features [B, D].

    Computed from inner products, without a tensor [B, B, D], because a teacher's penultimate layer may have thousands
    of features. Double precision avoids cancellation for near features (Apple's GPUs have none; there it is less
    exact).
    """
    x = features - features.mean(dim=0) if features.device.type == "mps" else features.double()
    inner = x @ x.T
    square = inner.diagonal()[:, None] + inner.diagonal() - 2.0 * inner
    apart = square > 1e-12 * (inner.diagonal()[:, None] + inner.diagonal())
    # Masked before the root, because the gradient of a root at 0 is infinite, which a later mask would turn into nan.
    square = torch.where(apart, square, 1.0)
    inverse = torch.where(apart, square.rsqrt(), 0.0).to(features.dtype)
    distance = torch.where(apart, square.sqrt(), 0.0).to(features.dtype)
    return _Relations(inner, distance / (distance.sum() / pairs).clamp_min(1e-12), inverse)


class _AngleGaps(torch.autograd.Function):
    """The sum over all ijk of Huber's loss between the cosines of student and teacher, for angles at j.

    cosine = n_ik / (d_ji d_jk), where n_ik = (f_i - f_j) . (f_k - f_j) = <i, k> - <i, j> - <j, k> + <j, j>. Taken for a
    few j at a time, together with the gradient, so that what is computed stays in the processor's cache and no tensor
    [B, B, B] exists.
    """

    ELEMENTS = 2**17  # of the tensors [rows, B, B], about: 1 MB in double precision

    @staticmethod
    def forward(ctx: Any, inner: Tensor, inverse: Tensor, other_inner: Tensor, other_inverse: Tensor) -> Tensor:
        count = len(inner)
        total, to_inner, to_inverse = inverse.new_zeros(()), torch.zeros_like(inverse), torch.zeros_like(inverse)
        for rows in torch.arange(count, device=inner.device).split(max(1, _AngleGaps.ELEMENTS // count**2)):
            numerator, theirs = (_numerators(x, rows).to(inverse.dtype) for x in (inner, other_inner))
            scale, their_scale = (x[rows, :, None] * x[rows, None, :] for x in (inverse, other_inverse))
            gap = numerator * scale - theirs * their_scale
            slope = gap.clamp(-1.0, 1.0)  # of Huber's loss
            total += (slope * (gap - 0.5 * slope)).sum()
            to_inverse[rows] += 2.0 * torch.bmm(numerator.mul_(slope), inverse[rows, :, None]).squeeze(2)
            weight = scale.mul_(slope)  # the gradient with respect to the numerators
            to_inner += weight.sum(dim=0)
            by_row = weight.sum(dim=2)  # the same as over the other index, because the weights are symmetric
            to_inner[:, rows] -= by_row.T
            to_inner[rows] -= by_row
            to_inner[rows, rows] += by_row.sum(dim=1)
        ctx.save_for_backward(to_inner.to(inner.dtype), to_inverse)
        return total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_inner, to_inverse = ctx.saved_tensors
        return slope * to_inner, slope * to_inverse, None, None


def _numerators(inner: Tensor, rows: Tensor) -> Tensor:
    """<i, k> - <i, j> - <j, k> + <j, j> for each j of ``rows``, [rows, B, B]."""
    to_row = inner[rows] - 0.5 * inner.diagonal()[rows][:, None]
    return (inner - to_row[:, :, None]).sub_(to_row[:, None, :])
