"""No distillation, the labels alone: teacher, NOKD, its control, and cGAN-KD (whose knowledge is in the images)."""

from __future__ import annotations

from torch import Tensor

from cgankd.distill.method import DistillBatch, Method, register


@register
class Supervised(Method):
    """L = loss(f_s(x), y): cross-entropy, or the squared error on labels in [0, 1]."""

    name = "supervised"
    tasks = ("classification", "regression")
    matches = "label"
    paper = "-"
    needs_teacher = False

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        return {"label": self.task.loss(batch.outputs, batch.targets)}
