"""The stations of a continual run: a task learnt by a method, each an artifact made from that of the task before.

The loop is :func:`cgankd.training.loop.fit`, with a label loss, a teacher and images of its own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.continual.losses import GlobalKD, Increment, TaskwiseKD
from cgankd.continual.measures import accuracy
from cgankd.continual.old_model import AdaptedTeacher, grow
from cgankd.continual.settings import Continual
from cgankd.continual.stream import Stream
from cgankd.core import rng
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.files import save_tensors
from cgankd.core.progress import Progress
from cgankd.core.store import CHECKPOINT, Artifact, RunFolder
from cgankd.data.imageset import ImageSet, Splits
from cgankd.distill import Objective
from cgankd.metrics import cost
from cgankd.nets import inference
from cgankd.nets.build import fresh_network, network_code
from cgankd.training.loop import fit


@dataclasses.dataclass(frozen=True)
class Way:
    """How a method learns a further task."""

    words: str
    distils: type[GlobalKD] | None = None
    adapts: bool = False
    joint: bool = False
    replays: str = ""  # what it is where images of old classes are kept, if not what ``words`` say


WAYS = {
    "finetune": Way("new images alone (lower bound)", replays="new images and the kept ones"),
    "gkd": Way("global KD", GlobalKD),
    "gkd+ta": Way("global KD, teacher adapted", GlobalKD, adapts=True),
    "tkd": Way("task-wise KD (LwF)", TaskwiseKD),
    "tkd+ta": Way("task-wise KD, teacher adapted", TaskwiseKD, adapts=True),
    "joint": Way("images of all tasks so far (upper bound)", joint=True),
}


class Learner:
    """One run's data, settings and folder, and how a task is learnt."""

    def __init__(
        self, settings: Continual, splits: Splits, folder: RunFolder, fabric: Fabric, progress: Progress
    ) -> None:
        self.settings, self.splits, self.folder = settings, splits, folder
        self.fabric, self.progress = fabric, progress
        self.keys = {name: getattr(splits, name).key() for name in ("train", "val", "test")}

    def stream(self, seed: int) -> Stream:
        return Stream.of(self.splits.task.num_outputs, self.settings.tasks, seed)

    def names(self, seed: int) -> list[str]:
        """The classes' names, in the seed's order."""
        order = self.stream(seed).order
        names, _ = self.splits.task.bins(order)
        return [names[label] for label in order.tolist()]

    def learn(self, method: str, seed: int, task: int) -> Artifact:
        """The network after ``task`` (from 0): weights, and its accuracy on all classes so far.

        The first task is the same for all methods.
        """
        way, settings = WAYS[method], self.settings
        before = self.learn(method, seed, task - 1) if task else None
        described: dict[str, Any] = {
            "network": settings.network,
            "fit": settings.fit.model_dump(mode="json"),
            "seed": seed,
            "tasks": settings.tasks,
            "task": task,
        }
        if task:
            described |= {"joint": way.joint} if way.joint else {"exemplars": settings.exemplars}
            if way.distils is not None:
                described |= {"distils": way.distils.name, "adapts": way.adapts}
                described |= settings.model_dump(mode="json", include={"temperature", "weight"})
        inputs = {**self.keys, **network_code(settings.network)}
        if before is not None:
            inputs["before"] = before.key

        def build(work: Path) -> dict[str, Any]:
            return self._build(work, way, f"{method} (seed {seed}), task {task + 1}", seed, task, before)

        return self.folder.stage("task", described, inputs, build)

    def network(self, artifact: Artifact, seed: int, task: int) -> nn.Module:
        """The network of :meth:`learn`'s artifact, in eval mode."""
        network = self._fresh(seed, task)
        network.load_state_dict(artifact.tensors("weights"))
        return inference.place(network, self.fabric).eval()

    def _fresh(self, seed: int, task: int) -> nn.Module:
        """New weights; normalised by the first task's images, for nobody has seen others when it begins."""
        stream = self.stream(seed)
        images = stream.images(self.splits.train, [0])
        numbers = rng.key(seed, "task", task)
        return fresh_network(self.settings.network, images, (task + 1) * stream.width, numbers)

    def _build(
        self, work: Path, way: Way, title: str, seed: int, task: int, before: Artifact | None
    ) -> dict[str, Any]:
        settings, stream = self.settings, self.stream(seed)
        network, teacher = self._fresh(seed, task), None
        if before is not None:
            grow(network, before.tensors("weights"))
            old = self.network(before, seed, task - 1)
            if way.distils is not None:
                teacher = AdaptedTeacher(old) if way.adapts else old
        images = self._images(way, stream, task)
        first = int(images.labels.min())  # without images of old classes, the labels' loss leaves their outputs out
        seen = tuple(self.names(seed)[: (task + 1) * stream.width])
        increment = Increment(seen, first)
        distils = []
        if teacher is not None and way.distils is not None:
            distils = [(way.distils(increment, stream.width, settings.temperature, settings.weight), None)]
        history = fit(
            network,
            Objective(title, increment, distils),
            increment,
            images,
            settings.fit,
            self.fabric,
            seed=rng.key(seed, "task", task),
            teacher=teacher,
            checkpoint=Checkpoint(work / CHECKPOINT, settings.runtime.checkpoint_seconds, self.folder.deadline),
            progress=self.progress,
            title=title if task else f"first task (seed {seed})",
        )
        save_tensors(work / "weights.safetensors", network.state_dict())
        found: dict[str, Any] = {"images": len(images), "parameters": cost.parameters(network)}
        for name in ("val", "test"):
            shown = stream.images(getattr(self.splits, name), range(task + 1))
            found[name] = dataclasses.asdict(accuracy(network, shown, increment, stream.width, self.fabric))
        return {**found, "history": history}

    def _images(self, way: Way, stream: Stream, task: int) -> ImageSet:
        """What the task is learnt from."""
        train, kept = self.splits.train, self.settings.exemplars
        if way.joint:
            return stream.images(train, range(task + 1))
        new = stream.images(train, [task])
        if not task or not kept:
            return new
        old = stream.exemplars(train, task, kept)
        return ImageSet(torch.cat([new.images, old.images]), torch.cat([new.labels, old.labels]))
