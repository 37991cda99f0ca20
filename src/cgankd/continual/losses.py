"""What a task is learnt by: the labels' loss on the new classes, and distillation of what the old model says.

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
    """The classes so far, of which the label's loss compares those from place ``first`` on.

    Without images of old classes the cross-entropy is taken over the new classes' outputs alone, or the old ones
    would be pushed down in every image. Predictions are always among all classes so far (task-agnostic).
    """

    first: int = 0

    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """outputs [B, classes so far], targets [B], all of them ``first`` or more."""
        return super().loss(outputs[:, self.first :], targets - self.first, reduction)


class GlobalKD(Method):
    """GKD: lambda KL(softmax(o/T) || softmax(f/T)) over all old outputs together, a mean over the batch.

    o [B, old]: the old model's outputs; f: the first ``old`` of the network's; T = 2, lambda = 10. The paper writes
    the cross-entropy, which differs by the old model's entropy and so in no gradient; without T^2, as published.
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
    """TKD, the loss of Learning without Forgetting (arXiv 1606.09282): a softmax for each old task by itself.

    lambda times the sum over old tasks of T^2 KL(softmax(o_j/T) || softmax(f_j/T)), with o_j, f_j the ``width``
    outputs of task j; the T^2 is in the authors' code.
    """

    name = "tkd"

    def divergence(self, outputs: Tensor, old: Tensor) -> Tensor:
        heads = zip(outputs.split(self.width, dim=1), old.split(self.width, dim=1), strict=True)
        total = outputs.new_zeros(())
        for mine, theirs in heads:
            total = total + self.task.imitation_loss(mine, theirs, self.temperature)
        return total
