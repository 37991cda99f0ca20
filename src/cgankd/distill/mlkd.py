"""Multi-level logit distillation: single predictions, relations of images, and relations of classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.method import DistillBatch, Method, register
from cgankd.settings import StudentSettings
from cgankd.task import Task


@register
class MLKD(Method):
    """The sum over temperatures T of three terms, P = softmax(outputs / T) [B, C].

    instance T^2 KL(P_t || P_s) + batch / B |P_s P_s' - P_t P_t'|^2 + class / C |P_s' P_s - P_t' P_t|^2. T is
    ``student.temperature``, 2, 3, 5 and 6. As published the last two grow with B and B^2; here they are the
    published ones at its B = 64, and the same at any other. The views are the loop's own; the published
    second, strongly augmented view and its confidence masks are left out. Defaults: 9 each, r 1
    (Jin, Wang and Lin, CVPR 2023).
    """

    name = "mlkd"
    tasks = ("classification",)
    matches = "output"
    paper = "CVPR 2023, Jin et al."
    defaults: ClassVar[dict[str, float]] = {"instance": 9.0, "batch": 9.0, "class": 9.0}

    PUBLISHED_BATCH: ClassVar[int] = 64

    def __init__(self, task: Task, settings: StudentSettings) -> None:
        super().__init__(task, settings)
        self.temperatures = (settings.temperature, 2.0, 3.0, 5.0, 6.0)

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        outputs, teacher = batch.outputs, batch.teacher_outputs
        per_image = self.PUBLISHED_BATCH / len(outputs)
        instance = images = labels = outputs.new_zeros(())
        for temperature in self.temperatures:
            instance = instance + self.task.imitation_loss(outputs, teacher, temperature)
            s, t = (torch.softmax(x / temperature, dim=1) for x in (outputs, teacher))
            images = images + per_image * (s @ s.T - t @ t.T).square().sum(dim=1).mean()
            labels = labels + per_image**2 * (s.T @ s - t.T @ t).square().sum(dim=1).mean()
        return {
            "mlkd_instance": self.values["instance"] * instance,
            "mlkd_batch": self.values["batch"] * images,
            "mlkd_class": self.values["class"] * labels,
        }
