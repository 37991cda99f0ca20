"""Trainings that one process and several must end alike.

A lesson is a method, with settings of its training after a slash: ``rkd``, ``kd/attacked``. ``killed``: the first
process is killed at the second step, after the first was saved. Or it is a GAN, ``gan/NAME``, one of :data:`GANS`.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.config.settings import (
    ILI,
    AdversarialSettings,
    AugmentSettings,
    FitSettings,
    GanSettings,
    ScalarLabelSettings,
)
from cgankd.core import rng
from cgankd.core.progress import SILENT, Bar, Progress
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Store
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import METHODS, MethodStack, student_network
from cgankd.distill.objective import parts
from cgankd.gan.generator import new_networks
from cgankd.labels import label_embedding
from cgankd.nets import zoo
from cgankd.nets.build import WEIGHTS, ModuleNetwork
from cgankd.pipeline import stages
from cgankd.pipeline.inputs import Teachers
from cgankd.tasks import Classification, Regression, Task
from cgankd.training.teacher_cache import TeacherOutputs

SIZE = (16, 16)
MIDDLE, DARK = 136, 0.05  # a pixel, and how dark: of two processes, one has no such row in a batch
STEPS = 2  # after more steps, some value may be on the other side of a ReLU
VARIANTS: dict[str, dict[str, Any]] = {
    "attacked": {"adversarial": AdversarialSettings(steps=2)},
    "mixed": {"augment": AugmentSettings(views=0, mixup=0.4, cutmix=1.0)},
    "cached": {"augment": AugmentSettings(views=1)},
    "no-views": {"augment": AugmentSettings(views=0)},
    "clipped": {"clip_norm": 0.1},
    "killed": {},
    "branch": {},
    "branch-undecayed": {"weight_decay": 0.0},
    "transformer": {},
}
COUNTED, SCALAR = Classification(("a", "b", "c")), Regression(0.0, 1.0)
# name -> task, settings of the GAN. Two, and one for each term that reads more than a row at a time.
GANS: dict[str, tuple[Task, dict[str, Any]]] = {
    "classes": (COUNTED, {}),
    "scalars": (SCALAR, {"diffaugment": ("color", "translation", "cutout")}),
    "r1": (COUNTED, {"loss": "relativistic", "r1": {"gamma": 10.0, "every": 2, "fakes": True}}),
    "mode-seeking": (COUNTED, {"mode_seeking": 0.1, "discriminator_steps": 2}),
    "lecam": (SCALAR, {"lecam": 1.0, "auxiliary": 10.0}),
    "transition": (COUNTED, {"transition": {"start": 0.0, "end": 1.0}, "loss": "vanilla"}),
    "guided-classes": (COUNTED, {"guidance": {"outputs": 1.0, "statistics": 1.0}}),
    "guided-scalars": (SCALAR, {"guidance": {"outputs": 1.0, "statistics": 1.0}}),
    "biggan": (COUNTED, {"network": {"kind": "biggan"}}),
    "killed": (COUNTED, {}),
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
    if lesson.startswith("gan/"):
        return learn_gan(store, lesson.removeprefix("gan/"))
    method, _, variant = lesson.partition("/")
    task = task_of(method)
    of_variant = next((module for name, module in MODULES.items() if variant.startswith(name)), None)
    student = network(student_network(method, "cnn8"), task, 1) if of_variant is None else of_variant()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    fit = FitSettings(
        steps=STEPS, batch_size=9, learning_rate=0.02,
        **{"augment": AugmentSettings(views=2), **VARIANTS.get(variant, {})},
    )  # fmt: skip
    real, fake = (6, 4) if variant == "cached" else (18, 12)  # so few come again, and so do the teacher's outputs
    with mock.patch.object(TeacherOutputs, "BLOCK", 4):  # so that each process asks the teacher about some
        artifact = store.call(
            stages.train_module,
            student=ModuleNetwork(student),
            methods=MethodStack.of(method, task),
            teachers=Teachers((ModuleNetwork(network("cnn24", task, 2)),)) if parts(method) else None,
            images=TrainingImages(noise(real, task, 3), noise(fake, task, 4), 0.6),
            fit=fit,
            task=task,
            seed=0,
        )
    return {name: (value - before[name]).double() for name, value in artifact.tensors(WEIGHTS).items()}


def learn_gan(store: Store, name: str) -> dict[str, Tensor]:
    """The change of the generator's weights in a few steps, and the history's losses.

    With its usual epsilon, Adam makes a step of the same length of every gradient. So a gradient of rounding errors
    alone would change a weight, and a gradient that is twice too large would not be seen.
    """
    task, settings = GANS[name]
    gan = GanSettings(
        steps=STEPS + 1, batch_size=9, channels=8, latent=8, label_dim=32, generator_rate=0.05, discriminator_rate=0.05,
        **settings,
    )  # fmt: skip
    scalar = ScalarLabelSettings(label_input=ILI(steps=3)) if task.continuous else None
    with mock.patch("torch.optim.Adam", functools.partial(torch.optim.Adam, eps=1.0)):
        artifact = store.call(
            stages.train_generator,
            train=noise(18, task, 3),
            size=SIZE,
            task=task,
            gan=gan,
            scalar=scalar,
            teacher=ModuleNetwork(network("cnn24", task, 2)) if gan.guidance else None,
            seed=0,
        )
    torch.manual_seed(rng.key(0, "gan/weights"))
    before = new_networks(gan, label_embedding(task, scalar, gan.label_dim), 1, SIZE)[0].state_dict()
    changes = {key: value.double() - before[key] for key, value in artifact.tensors(WEIGHTS).items()}
    last = artifact.summary["history"][-1]
    return changes | {key: torch.tensor(value, dtype=torch.float64) for key, value in last.items()}


def task_of(method: str) -> Task:
    """Classes for all methods that serve them."""
    classes = all("classification" in METHODS[name].tasks for name in parts(method))
    return COUNTED if classes else SCALAR


def network(name: str, task: Task, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return zoo.create(name, 1, task.num_outputs, SIZE)


class Branching(torch.nn.Module):
    """One layer is for images whose middle is dark, and one for none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.every, self.dark, self.none = (torch.nn.Linear(SIZE[0] * SIZE[1], 3) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(1)
        outputs, dark = self.every(rows), rows[:, MIDDLE] < DARK
        return outputs.index_add(0, dark.nonzero()[:, 0], self.dark(rows[dark])) if dark.any() else outputs


class Transformer(torch.nn.Module):
    """Two blocks on rows of pixels, with a weight of its own beside them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        width = SIZE[1]
        self.place = torch.nn.Parameter(torch.randn(SIZE[0], width))
        block = torch.nn.TransformerEncoderLayer(width, 2, 24, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = torch.nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(images[:, 0] + self.place).mean(dim=1))


MODULES = {"branch": Branching, "transformer": Transformer}


def noise(count: int, task: Task, seed: int) -> ImageSet:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, *SIZE), generator=rng, dtype=torch.uint8)
    return ImageSet(images, torch.rand(count, generator=rng) if task.continuous else torch.arange(count) % 3)


def main(folder: str, devices: str, *lessons: str, strategy: str = "ddp") -> None:
    fabric = make_fabric("cpu", "fp32", 1, int(devices), strategy=strategy)
    kills = any(lesson.endswith("/killed") for lesson in lessons) and fabric.is_global_zero
    store = open_store(Path(folder), fabric, AtSecondStep(killed) if kills else SILENT)
    for lesson in lessons:
        learn(store, lesson)
    store.close()
