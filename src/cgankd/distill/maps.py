"""The base of methods that compare feature maps: pairs of maps, brought to one size, and connectors of channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.distill.base import DistillBatch, Method, Shape, pairs, serving


class MapMethod(Method):
    """A method on pairs of feature maps [B, C_s, H, W] and [B, C_t, H, W], paired from the deepest one on.

    If the sizes of a pair differ, the larger map is averaged down to the smaller size, on each axis separately. A
    network without feature maps, such as most transformers, is refused.
    """

    matches = "feature"
    where = "all maps"
    needs_inside: ClassVar[bool] = True
    least_pixels: ClassVar[int] = 1  # pairs with smaller maps are left out

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        for who, layers in (("student", student), ("teacher", teacher)):
            if len(layers) < 2:
                raise UserError(
                    f"method {self.name!r} compares feature maps, but the {who}'s network has none; allowed: a "
                    "network with feature maps, or a method that matches outputs: "
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
                f"method {self.name!r} compares the pixels of feature maps, but no pair of maps has "
                f"{self.least_pixels} or more; allowed: larger images, or another method"
            )
        self.adapters = nn.ModuleList(self.adapter(student[mine][0], teacher[theirs][0]) for mine, theirs in self.pairs)

    def adapter(self, student: int, teacher: int) -> nn.Module:
        """The layer from the student's map to the teacher's, given their numbers of channels."""
        return nn.Identity()

    def student_maps(self, batch: DistillBatch) -> list[Tensor]:
        """The student's maps after their adapters, from the largest to the smallest."""
        maps = self._sized([batch.student_features[mine] for mine, _ in self.pairs])
        return [adapter(own) for adapter, own in zip(self.adapters, maps, strict=True)]

    def teacher_maps(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The teacher's maps in the same order, each in the size of its pair."""
        return self._sized([features[theirs] for _, theirs in self.pairs])

    def maps(self, batch: DistillBatch) -> list[tuple[Tensor, Tensor]]:
        """The pairs (student's map, teacher's map)."""
        return list(zip(self.student_maps(batch), self.teacher_maps(batch.teacher_features), strict=True))

    def _sized(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [
            features if features.shape[2:] == size else F.adaptive_avg_pool2d(features, size)
            for features, size in zip(maps, self.sizes, strict=True)
        ]


class Norm(nn.BatchNorm2d):
    """Batch normalisation that uses the running statistics for a single value per channel, which has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > x.shape[1]:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def connector(student: int, teacher: int) -> nn.Module:
    """A 1x1 convolution to the teacher's channels and batch normalisation, without activation."""
    return nn.Sequential(nn.Conv2d(student, teacher, 1, bias=False), Norm(teacher))
