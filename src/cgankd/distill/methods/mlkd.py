"""Multi-level logit distillation (MLKD): single predictions, relations of images, and relations of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.core import rng
from cgankd.data.augment import RandAugment
from cgankd.data.batches import Batch
from cgankd.distill.base import DistillBatch, Method, register
from cgankd.tasks import Task


@register
class MLKD(Method):
    """Three terms, summed over temperatures T, P = softmax(outputs / T) [B, C]; the first also for a strong view.

    instance T^2 KL(P_t || P_s) + batch / B |P_s P_s' - P_t P_t'|^2 + class / C |P_s' P_s - P_t' P_t|^2. T is
    ``student.temperature``, 2, 3, 5 and 6. The first term and the label's loss are also computed for a strong view of
    each image, for student and teacher: two of RandAugment's operations on the training view, at magnitude ``strong``,
    up to 1; with strong 0 there is no such view. As published, the other two terms grow with B and, if the images'
    differences agree, with B^2. Here they are divided by these factors, and equal the published ones at its B = 64. For
    few images, whose differences don't agree, the class term is large. In the published code, masks by confidence are
    applied after the mean, so they only halve the terms of the first view; they and its cut-out are left out [ours].
    Defaults: 9 each, strong 1, r 1. Label to teacher is 1 to 9, as in the paper's code (Jin, Wang and Lin, CVPR 2023;
    .1 and .9 there), at the scale of arXiv 2403.01427.
    """

    name = "mlkd"
    tasks = ("classification",)
    matches = "output"
    where = "outputs"
    distance = "KL, squared"
    paper = "CVPR 2023, Jin et al."
    reads_labels = True
    shared: ClassVar[tuple[str, ...]] = ("temperature",)
    defaults: ClassVar[dict[str, float]] = {"instance": 9.0, "batch": 9.0, "class": 9.0, "strong": 1.0}
    version = 2  # version 1 had no strong view

    PUBLISHED_BATCH: ClassVar[int] = 64
    OPERATIONS: ClassVar[int] = 2

    def __init__(self, task: Task, numbers: Mapping[str, float] | None = None) -> None:
        super().__init__(task, numbers)
        self.temperatures = (self.values["temperature"], 2.0, 3.0, 5.0, 6.0)

    def views(self, batch: Batch, seed: int) -> Tensor | None:
        if not self.values["strong"]:
            return None
        # a seed of its own, because the training views may also have random operations
        numbers = rng.key(seed, "mlkd/strong")
        strong = RandAugment(self.OPERATIONS, self.values["strong"], self.task.geometry_safe, numbers)
        return strong(batch.images.detach(), batch.index, batch.view)

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        outputs, teacher = batch.outputs, batch.teacher_outputs
        assert teacher is not None
        per_image = self.PUBLISHED_BATCH / len(outputs)
        instance = self._imitation(batch)
        images = labels = outputs.new_zeros(())
        for temperature in self.temperatures:
            s, t = (torch.softmax(x / temperature, dim=1) for x in (outputs, teacher))
            images = images + per_image * (s @ s.T - t @ t.T).square().sum(dim=1).mean()
            labels = labels + per_image**2 * (s.T @ s - t.T @ t).square().sum(dim=1).mean()
        terms = {
            "mlkd_instance": self.values["instance"] * instance,
            "mlkd_batch": self.values["batch"] * images,
            "mlkd_class": self.values["class"] * labels,
        }
        if self.values["strong"]:
            assert batch.extra is not None
            terms["mlkd_strong_instance"] = self.values["instance"] * self._imitation(batch.extra)
            terms["mlkd_strong_label"] = self.task.loss(batch.extra.outputs, batch.extra.targets)
        return terms

    def _imitation(self, batch: DistillBatch) -> Tensor:
        """T^2 KL(P_t || P_s), summed over the temperatures."""
        assert batch.teacher_outputs is not None
        total = batch.outputs.new_zeros(())
        for temperature in self.temperatures:
            total = total + self.task.imitation_loss(batch.outputs, batch.teacher_outputs, temperature)
        return total
