"""What methods on class logits ask of labels and of the number of classes."""

from __future__ import annotations

from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.tasks import Task


def index(targets: Tensor) -> Tensor:
    """The class of each target, int64 [B]; where targets are probabilities [B, classes], the most probable."""
    return targets.argmax(dim=1) if targets.ndim == 2 else targets


def refuse_two(name: str, task: Task, why: str) -> None:
    """Raise UserError where the task has two classes only."""
    if task.num_outputs < 3:
        raise UserError(f"method {name!r} is of no use with two classes, {why}; allowed: three classes or more, or kd")
