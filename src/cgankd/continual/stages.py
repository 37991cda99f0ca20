"""The stage of a continual run: one method learns one task, starting from the network after the task before.

The training loop is :func:`cgankd.training.loop.fit`; loss, teacher and images are those of the method.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import nn

from cgankd.config.settings import FitSettings
from cgankd.continual.losses import GlobalKD, Increment, TaskwiseKD
from cgankd.continual.measures import accuracy
from cgankd.continual.old_model import AdaptedTeacher, grow
from cgankd.continual.settings import Continual
from cgankd.continual.stream import Stream
from cgankd.core import rng
from cgankd.core.store import Artifact, Store, Work, stage
from cgankd.data.imageset import ImageSet, Splits, TrainingImages
from cgankd.distill import Objective
from cgankd.metrics import cost
from cgankd.nets.build import WEIGHTS, Architecture, StoredNetwork, fresh_network, keep_network
from cgankd.training.loop import fit as train

DISTILLATION: dict[str, type[GlobalKD]] = {"gkd": GlobalKD, "tkd": TaskwiseKD}


@dataclasses.dataclass(frozen=True)
class Learner:
    """How a method learns every task after the first.

    description: for the table; with_exemplars: replaces it where images of old classes are kept. distils: the loss for
    distillation from the old model. adapts: whether the old model normalises by statistics of the new data. joint:
    whether it trains on the images of all tasks so far.
    """

    description: str
    distils: Literal["", "gkd", "tkd"] = ""
    adapts: bool = False
    joint: bool = False
    with_exemplars: str = ""


LEARNERS = {
    "finetune": Learner("new images alone (lower bound)", with_exemplars="new images and the kept ones"),
    "gkd": Learner("global KD", "gkd"),
    "gkd+ta": Learner("global KD, teacher adapted", "gkd", adapts=True),
    "tkd": Learner("task-wise KD (LwF)", "tkd"),
    "tkd+ta": Learner("task-wise KD, teacher adapted", "tkd", adapts=True),
    "joint": Learner("images of all tasks so far (upper bound)", joint=True),
}


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How to distil from the old model. loss: one of DISTILLATION, which has the temperature and weight."""

    loss: str
    adapts: bool
    temperature: float
    weight: float


@stage(version=2)
def learn_task(
    work: Work,
    *,
    splits: Splits,
    tasks: int,
    task: int,
    network: Architecture,
    before: Artifact | None,
    distillation: Distillation | None,
    joint: bool,
    exemplars: int,
    fit: FitSettings,
    seed: int,
) -> dict[str, Any]:
    """The network after ``task`` (from 0): its weights, and its accuracy on all classes so far.

    before: the network after the task before. exemplars: images of each old class to train on as well.
    """
    stream = Stream.of(splits.task.num_outputs, tasks, seed)
    student, teacher = fresh(network, splits.train, stream, task, seed), None
    if before is not None:
        grow(student, before.tensors(WEIGHTS))
        if distillation is not None:
            old = StoredNetwork(before).open(work.fabric)
            teacher = AdaptedTeacher(old) if distillation.adapts else old
    images = _images(splits.train, stream, task, joint, exemplars)
    first = int(images.labels.min())  # without images of old classes, cross-entropy ignores their outputs
    increment = Increment(class_names(splits, stream)[: (task + 1) * stream.width], first)
    methods = []
    if distillation is not None and before is not None:
        loss = DISTILLATION[distillation.loss]
        methods = [(loss(increment, stream.width, distillation.temperature, distillation.weight), None)]
    history = train(
        work,
        student,
        Objective(work.title, increment, methods),
        TrainingImages(images),
        fit,
        seed=rng.key(seed, "task", task),
        teacher=teacher,
    )
    outputs = (task + 1) * stream.width
    summary = keep_network(work, student, network, splits.train, outputs)
    summary |= {"images": len(images), "parameters": cost.parameters(student), "history": history}
    for name in ("val", "test"):
        so_far = stream.images(getattr(splits, name), range(task + 1))
        summary[name] = dataclasses.asdict(accuracy(student, so_far, increment, stream.width, work.within(name, name)))
    return summary


def fresh(network: Architecture, train: ImageSet, stream: Stream, task: int, seed: int) -> nn.Module:
    """A new network. Its inputs are normalised by the images of the first task, because the others come later."""
    images = stream.images(train, [0])
    return fresh_network(network, images, (task + 1) * stream.width, rng.key(seed, "task", task))


def class_names(splits: Splits, stream: Stream) -> tuple[str, ...]:
    """The names of all classes, in the order of the stream."""
    names, _ = splits.task.bins(stream.order)
    return tuple(names[label] for label in stream.order.tolist())


def _images(train: ImageSet, stream: Stream, task: int, joint: bool, exemplars: int) -> ImageSet:
    """The training images of the task."""
    if joint:
        return stream.images(train, range(task + 1))
    new = stream.images(train, [task])
    if not task or not exemplars:
        return new
    old = stream.exemplars(train, task, exemplars)
    return ImageSet(torch.cat([new.images[:], old.images[:]]), torch.cat([new.labels, old.labels]))


def learn(store: Store, settings: Continual, splits: Splits, method: str, seed: int, task: int) -> Artifact:
    """The network after ``task`` by ``method``; the first task is the same for all methods."""
    learner = LEARNERS[method]
    before = learn(store, settings, splits, method, seed, task - 1) if task else None
    distillation = None
    if task and learner.distils:
        distillation = Distillation(learner.distils, learner.adapts, settings.temperature, settings.weight)
    title = f"{method} (seed {seed}), task {task + 1}" if task else f"first task (seed {seed})"
    return store.titled(title).call(
        learn_task,
        splits=splits,
        tasks=settings.tasks,
        task=task,
        network=Architecture(settings.network),
        before=before,
        distillation=distillation,
        joint=bool(task) and learner.joint,
        exemplars=settings.exemplars if task and not learner.joint else 0,
        fit=settings.fit,
        seed=seed,
    )
