"""Factor transfer (FT): the student learns the code of an auto-encoder of the teacher's last map."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.distill.base import DistillBatch, Preparation, Shape, register
from cgankd.distill.maps import MapMethod, Norm


@register
class FT(MapMethod):
    """weight mean |F_s - F_t|, F a factor [B, m, H, W] divided by each image's norm, m = share x C_t.

    The teacher's factor is the code of the paraphraser: an auto-encoder of the last map, with three 3x3 convolutions in
    encoder and decoder and leaky ReLU between them. It is trained before the student, by MSE, for ``first`` times the
    student's steps, and then frozen. The student's factor comes from the translator: three such convolutions with batch
    normalisation, trained together with the student. The paraphraser has no batch normalisation, and Adam as its
    optimiser [ours]. Defaults: weight 500 (scalars 50 [ours]), share .5, first .125 (30 of 240 epochs), r 1 (arXiv
    1802.04977).
    """

    name = "ft"
    tasks = ("classification", "regression")
    where = "last map"
    distance = "absolute"
    paper = "arXiv 1802.04977"
    defaults: ClassVar[dict[str, float]] = {"weight": 500.0, "share": 0.5, "first": 0.125}
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 50.0}}

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        mine, theirs = super().taps(student, teacher)
        return mine[-1:], theirs[-1:]

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        super().build(student, teacher)
        (width, *_) = teacher[self.pairs[0][1]]
        factor = self._factor(width)
        self.encoder = _convolutions(width, width, factor, factor)
        self.decoder = _convolutions(factor, factor, width, width)
        for half in (self.encoder, self.decoder):
            half.requires_grad_(False)

    def adapter(self, student: int, teacher: int) -> nn.Module:
        factor = self._factor(teacher)
        return _convolutions(student, student, factor, factor, norm=True)

    def _factor(self, width: int) -> int:
        return max(1, round(self.values["share"] * width))

    def prepare(self, preparation: Preparation) -> None:
        def reconstruction(images: Tensor) -> Tensor:
            (features,) = self.teacher_maps(preparation.teacher(images)[1])
            return F.mse_loss(self.decoder(self.encoder(features)), features)

        paraphraser = nn.ModuleList([self.encoder, self.decoder])
        preparation.minimise(paraphraser, reconstruction, self.values["first"], "ft: paraphraser")

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        ((mine, theirs),) = self.maps(batch)
        s, t = (F.normalize(x.flatten(1), dim=1) for x in (mine, self.encoder(theirs)))
        return {"ft": self.values["weight"] * F.l1_loss(s, t)}


def _convolutions(*widths: int, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        layers += [nn.LeakyReLU(0.1)] if number else []
        layers += [nn.Conv2d(before, after, 3, padding=1), *([Norm(after)] if norm else [])]
    return nn.Sequential(*layers)
