"""Trainings that one process and several must end alike: ``python shared_lessons.py FOLDER DEVICES LESSON ...``.

A lesson is a method, with settings of its training after a slash: ``rkd``, ``kd/attacked``. ``killed``: the first
process is killed at the second step, after the first was saved.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.config.settings import AdversarialSettings, AugmentSettings, FitSettings
from cgankd.core.progress import SILENT, Bar, Progress
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Store
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import METHODS, MethodStack, student_network
from cgankd.distill.objective import parts
from cgankd.nets import zoo
from cgankd.nets.build import WEIGHTS, ModuleNetwork
from cgankd.pipeline import stages
from cgankd.pipeline.inputs import Teachers
from cgankd.tasks import Classification, Regression, Task

SIZE = (16, 16)
STEPS = 2  # after more steps, some value may be on the other side of a ReLU
VARIANTS: dict[str, dict[str, Any]] = {
    "attacked": {"adversarial": AdversarialSettings(steps=2)},
    "mixed": {"augment": AugmentSettings(views=0, mixup=0.4, cutmix=1.0)},
    "no-views": {"augment": AugmentSettings(views=0)},
    "clipped": {"clip_norm": 0.1},
    "killed": {},
}


class AtSecondStep(Progress):
    """Calls ``end`` when a loop reports its second step."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        bar = Bar()

        def to(done: float, note: str = "") -> None:
            if done == 2:
                self.end()

        bar.to = to  # type: ignore[method-assign]
        yield bar


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def open_store(folder: Path, fabric: Fabric, progress: Progress = SILENT) -> Store:
    """A store whose loops save each step."""
    return Store(folder, fabric, progress, checkpoint_seconds=0.0)


def learn(store: Store, lesson: str) -> dict[str, Tensor]:
    """The change of the student's weights in a few steps on batches of 9 images, which no 2 or 4 processes divide."""
    method, _, variant = lesson.partition("/")
    task = task_of(method)
    student = network(student_network(method, "cnn8"), task, 1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    fit = FitSettings(
        steps=STEPS, batch_size=9, learning_rate=0.02,
        **{"augment": AugmentSettings(views=2), **VARIANTS.get(variant, {})},
    )  # fmt: skip
    artifact = store.call(
        stages.train_module,
        student=ModuleNetwork(student),
        methods=MethodStack.of(method, task),
        teachers=Teachers((ModuleNetwork(network("cnn24", task, 2)),)) if parts(method) else None,
        images=TrainingImages(noise(18, task, 3), noise(12, task, 4), 0.6),
        fit=fit,
        task=task,
        seed=0,
    )
    return {name: (value - before[name]).double() for name, value in artifact.tensors(WEIGHTS).items()}


def task_of(method: str) -> Task:
    """Classes for all methods that serve them."""
    classes = all("classification" in METHODS[name].tasks for name in parts(method))
    return Classification(("a", "b", "c")) if classes else Regression(0.0, 1.0)


def network(name: str, task: Task, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return zoo.create(name, 1, task.num_outputs, SIZE)


def noise(count: int, task: Task, seed: int) -> ImageSet:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, *SIZE), generator=rng, dtype=torch.uint8)
    return ImageSet(images, torch.rand(count, generator=rng) if task.continuous else torch.arange(count) % 3)


def main(folder: str, devices: str, lessons: Sequence[str]) -> None:
    fabric = make_fabric("cpu", "fp32", 1, int(devices))
    kills = any(lesson.endswith("/killed") for lesson in lessons) and fabric.is_global_zero
    store = open_store(Path(folder), fabric, AtSecondStep(killed) if kills else SILENT)
    for lesson in lessons:
        learn(store, lesson)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
