"""Teacher assistant (TAKD): a network of medium size learns from the teacher, and the student learns from it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.base import DistillBatch, Preparation, register
from cgankd.distill.methods.kd import KD
from cgankd.distill.networks import NetworkFactory


@register
class TAKD(KD):
    """a imitation(f_s, f_a), beside r loss(f_s, y): plain KD from the assistant f_a, which learnt by plain KD from f_t.

    Imitation, a, r and T are those of plain KD, for both trainings. The assistant is trained before the student, on the
    same images, for ``first`` times the student's steps. It is the network between student and teacher whose number of
    parameters is nearest to their geometric mean, in their families if there is one [ours]; the paper's assistants are
    chosen by hand. Default: first 1 (arXiv 1902.03393).
    """

    name = "takd"
    paper = "arXiv 1902.03393"
    defaults: ClassVar[dict[str, float]] = {"first": 1.0}
    asks_teacher = False  # its loss reads the assistant
    teaches_by = "kd"

    @classmethod
    def needs(cls) -> str:
        return "inside"  # not its features, but its size

    def networks(self, factory: NetworkFactory) -> None:
        self.assistant = factory(factory.between(self.name)).eval().requires_grad_(False)

    def prepare(self, preparation: Preparation) -> None:
        preparation.teach(self.assistant, self, self.values["first"])

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.images is not None
        with torch.no_grad():
            outputs = self.assistant(batch.images)
        return {"takd": super().loss(dataclasses.replace(batch, teacher_outputs=outputs))["kd"]}
