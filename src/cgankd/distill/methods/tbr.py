"""Teacher-bounded regression (TBR): adds the student's error only if it is larger than the teacher's."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register


@register
class TBR(Method):
    """weight mean(e_s if e_s + m > e_t, else 0), e = (output - label)^2 on [0, 1] labels.

    The teacher's error is a bound; its output, which may be far off, is no target. Outputs [B, 1], or
    [B, 2] for a label that wraps, with the squared distance. Defaults: weight .5,
    margin m 0, in units of e, r 1 (Chen et al., NeurIPS 2017).
    """

    name = "tbr"
    tasks = ("regression",)
    matches = "output"
    where = "outputs"
    distance = "squared, bounded"
    paper = "NeurIPS 2017, Chen et al."
    reads_labels = True
    defaults: ClassVar[dict[str, float]] = {"weight": 0.5, "margin": 0.0}

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        right = self.task.right_answer(batch.targets)
        answers = (self.task.answer(outputs) for outputs in (batch.outputs, batch.teacher_outputs))
        mine, theirs = ((answer - right).square().sum(dim=1) for answer in answers)  # [B]
        worse = mine + self.values["margin"] > theirs
        return {"tbr": self.values["weight"] * torch.where(worse, mine, 0.0).mean()}
