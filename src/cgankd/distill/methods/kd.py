"""Plain knowledge distillation (BLKD): the student imitates the teacher's outputs."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cgankd.config.settings import StudentSettings
from cgankd.distill.base import DistillBatch, Method, register
from cgankd.tasks import Task


@register
class KD(Method):
    """a imitation(f_s, f_t), beside r loss(f_s, y).

    Classes: imitation is T^2 KL(softmax(f_t/T) || softmax(f_s/T)), r = .1, a = .9, T = 4 (Hinton, Vinyals and Dean,
    arXiv 1503.02531). A scalar: (1 - a) MSE to the label + a MSE to the teacher, a = .5.
    """

    name = "kd"
    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")
    matches = "output"
    where = "outputs"
    distance = "KL, squared"
    paper = "arXiv 1503.02531"

    def __init__(self, task: Task, settings: StudentSettings) -> None:
        super().__init__(task, settings)
        self.temperature = settings.temperature
        self.label_weight = task.label_weight if settings.label_weight is None else settings.label_weight
        self.a = task.teacher_weight if settings.teacher_weight is None else settings.teacher_weight

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        imitation = self.task.imitation_loss(batch.outputs, batch.teacher_outputs, self.temperature)
        return {"kd": self.a * imitation}
