"""What methods that compare maps share: paired stages, one size for both, connectors between their channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.distill.base import DistillBatch, Method, Shape, pairs, serving


class MapMethod(Method):
    """A method on pairs of maps [B, C_s, H, W] and [B, C_t, H, W], the deepest with the deepest and so on upwards.

    Where a pair's sizes differ, the larger map is averaged down to the smaller; on each axis for itself. A network
    without maps, as most transformers are, is refused.
    """

    matches = "feature"
    where = "all maps"
    needs_inside: ClassVar[bool] = True
    least_pixels: ClassVar[int] = 1  # pairs of smaller maps are left out

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        for who, layers in (("student", student), ("teacher", teacher)):
            if len(layers) < 2:
                raise UserError(
                    f"method {self.name!r} compares maps, but the {who}'s network has none; allowed: a network "
                    "with maps, or a method that matches outputs: "
                    f"{', '.join(serving(self.task, needs='outputs'))}"
                )
        return pairs(student[:-1], teacher[:-1])

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.sizes: list[tuple[int, int]] = []
        for (mine, s), (theirs, t) in zip(student.items(), teacher.items(), strict=True):
            size = min(s[1], t[1]), min(s[2], t[2])
            if math.prod(size) >= self.least_pixels:
                self.pairs.append((mine, theirs))
                self.sizes.append(size)
        if not self.pairs:
            raise UserError(
                f"method {self.name!r} compares the pixels of maps, but of the maps that both networks have "
                f"none has {self.least_pixels}; allowed: larger images, or another method"
            )
        self.adapters = nn.ModuleList(self.adapter(student[mine][0], teacher[yours][0]) for mine, yours in self.pairs)

    def adapter(self, student: int, teacher: int) -> nn.Module:
        """What the student's map of so many channels goes through, on its way to the teacher's."""
        return nn.Identity()

    def student_maps(self, batch: DistillBatch) -> list[Tensor]:
        """Behind their adapters, from the largest map to the smallest."""
        maps = self._sized([batch.student_features[mine] for mine, _ in self.pairs])
        return [adapter(own) for adapter, own in zip(self.adapters, maps, strict=True)]

    def teacher_maps(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """In the same order, each of its pair's size."""
        return self._sized([features[theirs] for _, theirs in self.pairs])

    def maps(self, batch: DistillBatch) -> list[tuple[Tensor, Tensor]]:
        """Both, pair by pair."""
        return list(zip(self.student_maps(batch), self.teacher_maps(batch.teacher_features), strict=True))

    def _sized(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [
            own if own.shape[2:] == size else F.adaptive_avg_pool2d(own, size)
            for own, size in zip(maps, self.sizes, strict=True)
        ]


class Norm(nn.BatchNorm2d):
    """Batch normalisation that, of one image of one pixel, which has no deviation, takes what it has learnt."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > x.shape[1]:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def connector(student: int, teacher: int) -> nn.Module:
    """A 1x1 convolution to the teacher's channels and batch normalisation; its signs are free."""
    return nn.Sequential(nn.Conv2d(student, teacher, 1, bias=False), Norm(teacher))
