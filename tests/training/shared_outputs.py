"""Students whose teacher one process and several must ask alike.

A case is one of :data:`TEACHERS`, or ``pass``, a pass over rows in a stage of all processes. It may have an end after a
slash (tests/ends.py): it comes at the third block that a process computes, the teacher's or the pass's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core import ranks
from cgankd.core.blockwise import blockwise
from cgankd.core.store import Artifact, Store, Work, stage
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import MethodStack
from cgankd.nets import inference, zoo
from cgankd.nets.build import Architecture, ModuleNetwork, NetworkSource
from cgankd.pipeline import stages
from cgankd.pipeline.inputs import Student, Teachers
from cgankd.tasks import Classification
from cgankd.teachers.black_box import FunctionTeacher
from cgankd.training import scoring
from cgankd.training.teacher_cache import TeacherOutputs
from ends import ENDS, nothing

TASK = Classification(("a", "b", "c"))
ROWS = 17  # of ``pass``, in 9 blocks
VIEWS = {"fresh": AugmentSettings(views=0, mixup=0.4)}  # of which none is seen twice


class Summing(nn.Module):
    """A teacher whose outputs are the same to the last bit, however many images it sees at once."""

    def __init__(self, end: Callable[[], None]) -> None:
        super().__init__()
        self.end = until(end)

    def forward(self, images: Tensor) -> Tensor:
        self.end()
        return images.flatten(1)[:, :3]


class AskedByAll(Summing):
    """One of several teachers, which no process asks alone."""

    def forward(self, images: Tensor) -> Tensor:
        assert ranks.share()[1] == ranks.count()
        return super().forward(images)


def asked_by_first(images: Tensor) -> Tensor:
    """A teacher that may charge for each answer."""
    assert ranks.is_first()
    return images.flatten(1)[:, :3]


def until(end: Callable[[], None]) -> Callable[[], None]:
    """A function that calls ``end`` when it is called for the third time."""
    calls = itertools.count(1)
    return lambda: end() if next(calls) == 3 else None


def network(end: Callable[[], None]) -> NetworkSource:
    torch.manual_seed(1)
    return ModuleNetwork(zoo.create("cnn8", 1, 3, (16, 16)))


TEACHERS: dict[str, Callable[[Callable[[], None]], NetworkSource]] = {
    "sums": lambda end: ModuleNetwork(Summing(end)),
    "vote": lambda end: ModuleNetwork(AskedByAll(end)),
    "service": lambda end: FunctionTeacher(asked_by_first, TASK, "shared_outputs:asked_by_first"),
    "network": network,
    "fresh": lambda end: FunctionTeacher(asked_by_first, TASK, "shared_outputs:asked_by_first"),
}


def made(store: Store, case: str) -> Artifact:
    """A student whose teacher has 20 and 12 blocks of outputs; or the pass."""
    name, _, end = case.partition("/")
    if name == "pass":
        Ending.now = until(ENDS[end])
        return store.call(squares)
    teacher = TEACHERS[name](ENDS[end])
    teachers = Teachers((teacher, teacher), "mean") if name == "vote" else Teachers((teacher,))
    with mock.patch.object(TeacherOutputs, "BLOCK", 2), mock.patch.object(scoring, "outputs", outputs_by_all):
        student = store.call(
            stages.train_student,
            student=Student(Architecture("cnn8+vam"), MethodStack.of("kd", TASK)),
            teachers=teachers,
            images=TrainingImages(noise(40, 3), noise(23, 4), 0.6),
            fit=FitSettings(
                steps=3, batch_size=24, learning_rate=0.02, augment=VIEWS.get(name, AugmentSettings(views=1))
            ),
            val=noise(510, 5),
            task=TASK,
            seed=0,
        )
        tested(store, student)
    return student


def tested(store: Store, student: Artifact) -> Artifact:
    """Its scores on the test split."""
    return store.call(stages.score_student, student=student, test=noise(260, 6), task=TASK)


def outputs_by_all(*arguments: Any) -> Tensor:
    """The student's outputs for its scores."""
    assert ranks.share()[1] == ranks.count()
    return inference.outputs(*arguments)


def noise(count: int, seed: int) -> ImageSet:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 16, 16), generator=rng, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % 3)


class Ending:
    """The end of ``pass``, which is no argument of its stage, because it may not change the key."""

    now = staticmethod(nothing)


@stage(together=True)
def squares(work: Work) -> dict[str, Any]:
    """The squares of some numbers; of several processes, the first one has them all."""

    def compute(rows: Tensor) -> dict[str, Tensor]:
        Ending.now()
        return {"squares": rows.float() ** 2}

    return {"squares": blockwise(work, "squares", ROWS, compute, 2)["squares"].tolist()}
