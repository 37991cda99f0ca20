"""What methods are shown in tests: random outputs, features of two widths, and methods built for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from cgankd.config.settings import StudentSettings
from cgankd.core.store import Work
from cgankd.distill import METHODS, DistillBatch, Method, Objective, Preparation
from cgankd.tasks import Classification, Regression, Task
from cgankd.training.forward import BatchForward

SCALAR = Regression(0.0, 1.0)
LAYERS = ["early", "late", "end"]
STUDENT = {"early": (3, 4, 4), "late": (4, 2, 2), "end": (5,)}
TEACHER = {"early": (5, 4, 4), "late": (6, 3, 3), "end": (7,)}


def classes(count: int) -> Classification:
    return Classification(tuple(map(str, range(count))))


def example(task: Task, rows: int = 7, *, scale: float = 2.0, seed: int = 0, done: float = 0.5) -> DistillBatch:
    """Rows 2, 5, 8, .. are fake. The student's outputs and features are leaves that want a gradient."""
    rng = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=rng)

    if task.continuous:
        targets = torch.rand(rows, generator=rng)
        outputs, teacher = (targets[:, None] + 0.2 * random(1) for _ in range(2))
    else:
        targets = torch.randint(0, task.num_outputs, (rows,), generator=rng)
        outputs, teacher = (scale * random(task.num_outputs) for _ in range(2))
    mine, theirs = ({name: random(*shape) for name, shape in side.items()} for side in (STUDENT, TEACHER))
    return DistillBatch(
        outputs.requires_grad_(),
        targets,
        teacher,
        {name: value.requires_grad_() for name, value in mine.items()},
        theirs,
        torch.arange(rows) % 3 == 2,
        done=done,
    )


PLAIN = {
    "mlkd": {"strong": 0.0}, "ls-mlkd": {"strong": 0.0}, "flow": {"auxiliary": 0.0}, "ab": {"alone": 0.0},
}  # fmt: skip


def unbuilt(name: str, task: Task, settings: StudentSettings | None = None) -> Method:
    """With the numbers that the settings give it, and none of its layers yet."""
    return METHODS[name](task, METHODS[name].resolve(task, settings))


def prepare(objective: Objective, forward: BatchForward, steps: int = 2) -> None:
    """As training does, before so many steps; networks that methods would have taught stay as they were made."""
    work = Work(forward.fabric)
    objective.prepare(Preparation(forward, forward.student, steps, work, 0, lambda *_: None))


def method(name: str, task: Task, student_temperature: float = 4.0, **own: float) -> Method:
    """Built for :func:`example`'s features, from a seed; without the views and networks that an example lacks."""
    chosen = {**PLAIN.get(name, {}), **own}
    settings = StudentSettings(temperature=student_temperature, method_settings={name: chosen})
    made = unbuilt(name, task, settings)
    mine, theirs = made.taps(LAYERS, LAYERS)
    torch.manual_seed(0)
    made.build({layer: STUDENT[layer] for layer in mine}, {layer: TEACHER[layer] for layer in theirs})
    return made


def numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    """Terms as plain numbers."""
    return {name: float(term.detach()) for name, term in terms.items()}


def value(made: Method, batch: DistillBatch) -> float:
    """The sum of a method's terms."""
    return sum(numbers(made.loss(batch)).values())


def changed(batch: DistillBatch, change: Any) -> DistillBatch:
    """The batch with ``change`` (Tensor [B, ..] -> Tensor) made to all that has rows."""
    assert batch.teacher_outputs is not None
    return dataclasses.replace(
        batch,
        outputs=change(batch.outputs.detach()),
        targets=change(batch.targets),
        teacher_outputs=change(batch.teacher_outputs),
        student_features={name: change(feature.detach()) for name, feature in batch.student_features.items()},
        teacher_features={name: change(feature) for name, feature in batch.teacher_features.items()},
        fake=change(batch.fake),
    )


def twice(batch: DistillBatch) -> DistillBatch:
    """Every image a second time."""
    return changed(batch, lambda rows: torch.cat([rows, rows]))
