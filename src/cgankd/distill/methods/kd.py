"""Plain knowledge distillation (BLKD): the student imitates the teacher's outputs."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register


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
    shared: ClassVar[tuple[str, ...]] = ("temperature", "label_weight", "teacher_weight")

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        imitation = self.task.imitation_loss(batch.outputs, batch.teacher_outputs, self.values.get("temperature", 1.0))
        return {"kd": self.values["teacher_weight"] * imitation}
