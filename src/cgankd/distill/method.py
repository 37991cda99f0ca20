"""The contract of a distillation method: which tasks, which features, which named loss terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn

from cgankd.errors import UserError
from cgankd.recipe import StudentSettings
from cgankd.task import Task


@dataclasses.dataclass(frozen=True)
class DistillBatch:
    """What a method's loss may look at. B images, real and fake together."""

    outputs: Tensor  # the student's, [B, number of outputs]
    targets: Tensor  # [B]
    teacher_outputs: Tensor | None  # [B, number of outputs]; there if the method needs the teacher
    student_features: Mapping[str, Tensor]
    teacher_features: Mapping[str, Tensor]
    fake: Tensor  # bool [B]


class Method(nn.Module):
    """A distillation method; its adapter layers are its own parameters, trained beside the student's.

    Subclasses say what they are (``tasks``, ``matches``, ``paper``), what they look at (``taps``) and what they
    minimise (``loss``).
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    matches: ClassVar[str]  # output, feature, relation, gradient, or label
    paper: ClassVar[str]
    needs_teacher: ClassVar[bool] = True

    def __init__(self, task: Task, settings: StudentSettings) -> None:
        super().__init__()
        if task.name not in self.tasks:
            raise UserError(f"method {self.name!r} does not serve {task.name}; it serves {', '.join(self.tasks)}")
        self.task = task

    def taps(self) -> tuple[list[str], list[str]]:
        """Names of the student's and of the teacher's features that ``loss`` looks at."""
        return [], []

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Named loss terms, each a scalar with its weight in it; their sum is minimised."""
        raise NotImplementedError


_METHODS: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator: makes a method known by its ``name``."""
    _METHODS[method.name] = method
    return method


def create(name: str, task: Task, settings: StudentSettings | None = None) -> Method:
    """The method called ``name`` for a task; UserError where it is not known or does not serve the task."""
    if name not in _METHODS:
        raise UserError(f"distillation method {name!r} is not known; allowed: {', '.join(names())}")
    factory: Callable[[Task, StudentSettings], Method] = _METHODS[name]
    return factory(task, settings or StudentSettings())


def names() -> list[str]:
    """The registered methods."""
    return sorted(_METHODS)
