"""The losses of a task: cross-entropy on the new classes, and distillation from the old model.

Szatkowski et al., Adapt Your Teacher (arXiv 2308.09544), section 3: L = CE + lambda KD.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cgankd.distill import DistillBatch
from cgankd.distill.base import Method
from cgankd.tasks import Classification


@dataclasses.dataclass(frozen=True)
class Increment(Classification):
    """Classification among all classes so far, with cross-entropy over the outputs from ``first`` on.

    Without images of old classes the cross-entropy is over the outputs of the new classes alone, because else every
    image would push the old outputs down. Predictions are always among all classes so far (task-agnostic).
    """

    first: int = 0

    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """outputs [B, classes so far]; targets [B], all of which are ``first`` or larger."""
        return super().loss(outputs[:, self.first :], targets - self.first, reduction)


class GlobalKD(Method):
    """GKD: lambda KL(softmax(o/T) || softmax(f/T)) over all old outputs together, a mean over the batch.

    o [B, old]: outputs of the old model; f: the first ``old`` outputs of the network; T = 2, lambda = 10. The paper
    writes it as cross-entropy, which has the same gradient. There is no factor T^2, as published.
    """

    name = "gkd"
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    matches = "output"
    where = "outputs"
    distance = "KL"
    paper = "arXiv 2308.09544"

    def __init__(self, task: Increment, width: int, temperature: float, weight: float) -> None:
        super().__init__(task, {})
        self.width, self.temperature, self.weight = width, temperature, weight

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        old = batch.teacher_outputs
        return {self.name: self.weight * self.divergence(batch.outputs[:, : old.shape[1]], old)}

    def divergence(self, outputs: Tensor, old: Tensor) -> Tensor:
        """A scalar; both [B, old outputs]."""
        return self.task.imitation_loss(outputs, old, self.temperature) / self.temperature**2


class TaskwiseKD(GlobalKD):
    """TKD, the loss of Learning without Forgetting (arXiv 1606.09282): a separate softmax for each old task.

    lambda times the sum over old tasks of T^2 KL(softmax(o_j/T) || softmax(f_j/T)), where o_j and f_j are the
    ``width`` outputs of task j; the T^2 is in the authors' code.
    """

    name = "tkd"

    def divergence(self, outputs: Tensor, old: Tensor) -> Tensor:
        heads = zip(outputs.split(self.width, dim=1), old.split(self.width, dim=1), strict=True)
        total = outputs.new_zeros(())
        for new_head, old_head in heads:
            total = total + self.task.imitation_loss(new_head, old_head, self.temperature)
        return total
