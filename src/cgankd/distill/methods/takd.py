"""Teacher assistant (TAKD): a network of a size in between learns from the teacher, the student from it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.base import DistillBatch, Preparation, register
from cgankd.distill.methods.kd import KD
from cgankd.distill.networks import Maker


@register
class TAKD(KD):
    """a imitation(f_s, f_a), beside r loss(f_s, y): plain KD from the assistant f_a, which learnt by it from f_t.

    Imitation, a, r and T are those of plain KD, for both lessons; the assistant is taught on ``first`` times as
    many steps as follow, on the same images. It is the network whose number of parameters is nearest to the
    geometric mean of the student's and the teacher's, of those between, in their families first [ours]; the
    paper's are chosen by hand. Default: first 1 (arXiv 1902.03393).
    """

    name = "takd"
    paper = "arXiv 1902.03393"
    defaults: ClassVar[dict[str, float]] = {"first": 1.0}
    asks_teacher = False  # the assistant answers
    teaches_by = "kd"

    @classmethod
    def needs(cls) -> str:
        return "inside"  # not its features, but how large it is

    def networks(self, make: Maker) -> None:
        self.assistant = make(make.between(self.name)).eval().requires_grad_(False)

    def prepare(self, preparation: Preparation) -> None:
        preparation.teach(self.assistant, self, self.values["first"])

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.images is not None
        with torch.no_grad():
            outputs = self.assistant(batch.images)
        return {"takd": super().loss(dataclasses.replace(batch, teacher_outputs=outputs))["kd"]}
