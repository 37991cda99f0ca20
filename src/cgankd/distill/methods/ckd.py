"""Comparative knowledge distillation (CKD): matches the differences between the outputs for two images."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register


@register
class CKD(Method):
    """weight mean_ij (|D_ij^s - D_ij^t|^2 + |D_ij^s - D_ij^y|^2) + anchor mean_i |a_i^s - a_i^t|^2.

    D_ij = a_i - a_j; a: class probabilities [B, C], or the scalar [B, 1]; y: the same of the label. Means over all
    pairs of distinct images. (With random groups of n images instead of single ones, the expectation is 1/n of it, so
    the size of groups is part of the weight.) A shift common to all outputs changes no difference, so the anchor term
    is added [ours]. Defaults: weight 1, anchor .1, r 1 (arXiv 2311.02253).
    """

    name = "ckd"
    tasks = ("classification", "regression")
    matches = "relation"
    where = "outputs"
    distance = "squared"
    paper = "arXiv 2311.02253"
    reads_labels = True
    defaults: ClassVar[dict[str, float]] = {"weight": 1.0, "anchor": 0.1}

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        student, teacher = self.task.answer(batch.outputs), self.task.answer(batch.teacher_outputs)
        right = self.task.right_answer(batch.targets)
        anchor = (student - teacher).square().sum(dim=1).mean()
        return {
            "ckd": self.values["weight"] * (difference(student - teacher) + difference(student - right)),
            "ckd_anchor": self.values["anchor"] * anchor,
        }


def difference(errors: Tensor) -> Tensor:
    """Mean over pairs i != j of |e_i - e_j|^2, errors [B, K]: twice the variance; 0 for a single row."""
    centred = errors - errors.mean(dim=0)
    return 2.0 * centred.square().sum() / max(len(errors) - 1, 1)
