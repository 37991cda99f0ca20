"""ReviewKD: each of the student's maps, fused with the deeper ones, matches the teacher's at several scales."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.distill.base import DistillBatch, Shape, register
from cgankd.distill.maps import MapMethod, Norm

WIDEST = 512  # largest number of channels of the fused maps


@register
class ReviewKD(MapMethod):
    """weight min(1, done / warmup) sum_l HCL(g_l, A_t,l), over maps l and the penultimate layer, a 1x1 map.

    From the deepest layer upwards: x_l = a_1 c(A_s,l) + a_2 x_(l+1), where c is a 1x1 convolution to a common width
    (the student's penultimate, 512 at most), x_(l+1) the deeper fused map, upsampled to the same size, and a [B, 2, H,
    W] the sigmoids of a 1x1 convolution of both (ABF); g_l: a 3x3 convolution of x_l at the teacher's size and width.
    HCL: MSE of the maps and, with weights 1/2, 1/4, 1/8, of the maps pooled to 4x4, 2x2 and 1x1, if they are larger,
    divided by the sum of the weights. Defaults: weight 5 (scalars .5 [ours]), warmup .083 (20 of 240 epochs), r 1
    (arXiv 2104.09044).
    """

    name = "reviewkd"
    tasks = ("classification", "regression")
    where = "all maps, penultimate"
    distance = "squared, at several scales"
    paper = "arXiv 2104.09044"
    defaults: ClassVar[dict[str, float]] = {"weight": 5.0, "warmup": 20 / 240}
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 0.5}}

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        mine, theirs = super().taps(student, teacher)
        return [*mine, student[-1]], [*theirs, teacher[-1]]

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        self.pairs = list(zip(student, teacher, strict=True))
        mine, theirs = ([_as_map(shape) for shape in side.values()] for side in (student, teacher))
        middle = min(WIDEST, mine[-1][0])
        self.teacher_sizes = [shape[1:] for shape in theirs]
        self.fusions = nn.ModuleList(
            Fusion(s[0], middle, t[0], place < len(mine) - 1)
            for place, (s, t) in enumerate(zip(mine, theirs, strict=True))
        )

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        deeper, terms = None, []
        for place in reversed(range(len(self.pairs))):
            mine, theirs = self.pairs[place]
            s, t = batch.student_features[mine], batch.teacher_features[theirs]
            s, t = (x.reshape(len(x), *_as_map(x.shape[1:])) for x in (s, t))
            guess, deeper = self.fusions[place](s, deeper, self.teacher_sizes[place])
            terms.append(hierarchical(guess, t))
        share = min(1.0, batch.done / self.values["warmup"]) if self.values["warmup"] > 0 else 1.0
        return {"reviewkd": self.values["weight"] * share * torch.stack(terms).sum()}


class Fusion(nn.Module):
    """ABF: a map [B, C_s, H, W] and the deeper fused map -> (a prediction [B, C_t, *size], the fused map)."""

    def __init__(self, student: int, middle: int, teacher: int, fuses: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(student, middle, 1, bias=False), Norm(middle))
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuses else None
        self.widen = nn.Sequential(nn.Conv2d(middle, teacher, 3, padding=1, bias=False), Norm(teacher))

    def forward(self, own: Tensor, deeper: Tensor | None, size: Shape) -> tuple[Tensor, Tensor]:
        x = self.narrow(own)
        if self.attention is not None and deeper is not None:
            y = F.interpolate(deeper, x.shape[2:])
            share = self.attention(torch.cat([x, y], dim=1)).sigmoid()
            x = x * share[:, :1] + y * share[:, 1:]
        fused = F.interpolate(x, size)
        return self.widen(fused), fused


def hierarchical(guess: Tensor, right: Tensor) -> Tensor:
    """HCL of two maps [B, C, H, W]."""
    total, weight, weights = F.mse_loss(guess, right), 1.0, 1.0
    for cells in (4, 2, 1):
        if cells < min(guess.shape[2:]):
            weight /= 2
            weights += weight
            a, b = (F.adaptive_avg_pool2d(x, cells) for x in (guess, right))
            total = total + weight * F.mse_loss(a, b)
    return total / weights


def _as_map(shape: Shape) -> Shape:
    return tuple(shape) if len(shape) == 3 else (math.prod(shape), 1, 1)
