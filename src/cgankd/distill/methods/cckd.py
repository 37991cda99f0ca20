"""Confidence-conditioned distillation (CCKD): the teacher is weighted by how right it is for the image."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register


class ConfidenceConditioned(Method):
    """What both variants share: lambda, and which images are skipped.

    lambda_i is the teacher's probability of the label, or for a scalar exp(-|f_t - y| / scale) [ours].
    Self-regulation: an image is skipped if the student's margin (the label's probability minus the next largest one) is
    at least 1 - exp(-alpha n), where n = 1, ... is the epoch, of ``epochs``; with scalars no image is skipped. The mean
    is over the batch; skipped images add 0. r is 0, because the terms include the label's loss.
    """

    tasks = ("classification", "regression")
    matches = "output"
    where = "outputs"
    distance = "KL, squared"
    paper = "arXiv 2107.06993"
    reads_labels = True
    defaults: ClassVar[dict[str, float]] = {"scale": 0.1, "alpha": 0.01, "epochs": 240.0}
    label_weight = 0.0

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        trust = self.task.agreement(batch.teacher_outputs, batch.targets, self.values["scale"])
        epoch = 1 + math.floor(batch.done * self.values["epochs"])
        with torch.no_grad():
            safe = 1.0 - math.exp(-self.values["alpha"] * epoch)
            learns = self.task.margin(batch.outputs, batch.targets) < safe
        return {self.name: (learns * self.losses(batch, batch.teacher_outputs, trust)).mean()}

    def losses(self, batch: DistillBatch, teacher: Tensor, trust: Tensor) -> Tensor:
        """The loss of each image, [B]; teacher [B, number of outputs], trust (lambda) [B]."""
        raise NotImplementedError


@register
class CCKD(ConfidenceConditioned):
    """mean_i lambda_i imitation(f_s, f_t) + (1 - lambda_i) loss(f_s, y), imitation as plain KD's.

    lambda and skipped images: :class:`ConfidenceConditioned`. Outputs [B, number of outputs]. Defaults: scale .1
    (of the label range), alpha .01, epochs 240, r 0 (arXiv 2107.06993).
    """

    name = "cckd"
    shared: ClassVar[tuple[str, ...]] = ("temperature",)

    def losses(self, batch: DistillBatch, teacher: Tensor, trust: Tensor) -> Tensor:
        imitation = self.task.imitation_loss(
            batch.outputs, teacher, self.values.get("temperature", 1.0), reduction="none"
        )
        return trust * imitation + (1.0 - trust) * self.task.loss(batch.outputs, batch.targets, reduction="none")


@register
class CCKDTarget(ConfidenceConditioned):
    """mean_i loss(f_s, lambda_i a_t + (1 - lambda_i) y), a_t the teacher's probabilities, or its scalar.

    lambda, skipped images and defaults: as in :class:`CCKD`, which mixes the two losses instead of the targets.
    """

    name = "cckd-target"

    def losses(self, batch: DistillBatch, teacher: Tensor, trust: Tensor) -> Tensor:
        mixed = torch.lerp(self.task.right_answer(batch.targets), self.task.answer(teacher), trust.unsqueeze(1))
        return self.task.loss(batch.outputs, mixed.squeeze(1), reduction="none")  # a scalar's targets are [B]
