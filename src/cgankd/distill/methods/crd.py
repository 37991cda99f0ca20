"""Contrastive representation distillation (CRD): tells apart features of the same and of other images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.distill.base import DistillBatch, Method, Shape, register


@register
class CRD(Method):
    """weight (CE(Z, i) + CE(Z', i)), Z_ij = g_s(f_s,i) . g_t(f_t,j) / temperature, i the row's own index.

    g: a linear layer to ``width`` numbers and division by the norm, one for each network, trained together with the
    student. Features: penultimate, [B, D]. The negatives are the other images of the batch [ours]. The published method
    has 16,384 from a memory bank of all features, whose size grows with the training set. Only the index counts, so any
    kind of label is allowed. Defaults: weight .8 (scalars .08 [ours]), temperature .07, width 128, r 1 (arXiv
    1910.10699).
    """

    name = "crd"
    tasks = ("classification", "regression")
    matches = "relation"
    where = "penultimate"
    distance = "cross-entropy"
    paper = "arXiv 1910.10699"
    defaults: ClassVar[dict[str, float]] = {"weight": 0.8, "temperature": 0.07, "width": 128}
    task_defaults: ClassVar[dict[str, dict[str, float]]] = {"regression": {"weight": 0.08}}
    needs_inside = True

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        return [student[-1]], [teacher[-1]]

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        ((self.mine, s),), ((self.theirs, t),) = student.items(), teacher.items()
        width = int(self.values["width"])
        self.embed_student, self.embed_teacher = nn.Linear(math.prod(s), width), nn.Linear(math.prod(t), width)

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        mine, theirs = batch.student_features[self.mine], batch.teacher_features[self.theirs]
        s = F.normalize(self.embed_student(mine.flatten(1)), dim=1)
        t = F.normalize(self.embed_teacher(theirs.flatten(1)), dim=1)
        logits = s @ t.T / self.values["temperature"]  # [B, B]
        own = torch.arange(len(logits), device=logits.device)
        return {"crd": self.values["weight"] * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))}
