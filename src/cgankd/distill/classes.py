"""What methods on class logits need: the class of a target, and more than two classes."""

from __future__ import annotations

from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.tasks import Task


def index(targets: Tensor) -> Tensor:
    """The class of each target, int64 [B]; of targets that are probabilities [B, classes], the most probable class."""
    return targets.argmax(dim=1) if targets.ndim == 2 else targets


def refuse_two(name: str, task: Task, why: str) -> None:
    """Raise UserError if the task has only two classes. why: the reason, for the message."""
    if task.num_outputs < 3:
        raise UserError(
            f"method {name!r} is not useful with two classes, because {why}; allowed: three classes or more, or kd"
        )
