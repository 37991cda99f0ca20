"""What student and teacher show of a batch; and the rehearsal that refuses what they can't do."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cgankd.core import rng
from cgankd.core.progress import Progress
from cgankd.data.batches import Batch, Batches
from cgankd.distill import DistillBatch, Maker, Objective, Preparation
from cgankd.distill.limits import check_answers_suffice
from cgankd.nets import inference
from cgankd.nets.feature_layers import stages
from cgankd.nets.taps import PENULTIMATE, Taps, feature_shapes
from cgankd.tasks import Task
from cgankd.training.teacher_cache import TeacherOutputs


class Sight:
    """Student and teacher on a batch: their outputs, and the features that an objective looks at.

    Where outputs are all that is looked at, each view of an image is shown to the teacher once; features are too
    large to keep, so a method that looks inside the teacher has it run beside the student. Where no method's loss
    looks at the teacher, it is not asked.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: inference.Predictor | None,
        objective: Objective,
        batches: Batches,
        task: Task,
        fabric: Fabric,
        seed: int,
        answers: Path | None = None,
    ) -> None:
        self.student, self.teacher, self.objective = student, teacher, objective
        self.batches, self.fabric, self.seed, self.answers = batches, fabric, seed, answers
        self.width = task.num_outputs
        self.memory: TeacherOutputs | None = None
        self._taps: dict[str, Taps] = {}
        if objective.needs_teacher and isinstance(teacher, nn.Module):
            inference.place(teacher, fabric).eval()
        channels, size = batches.views.channels, (batches.views.height, batches.views.width)
        whole = teacher if isinstance(teacher, nn.Module) else None
        if whole is None:
            check_answers_suffice(objective, "this one is a plain callable")
        with self._seeded("method/networks"):
            objective.networks(Maker(student, whole, channels, task.num_outputs, size))
        if objective.looks_inside:
            self._look_inside(student, whole, channels, size)
        inference.place(objective, fabric)

    @contextlib.contextmanager
    def _seeded(self, stream: str) -> Iterator[None]:
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(rng.key(self.seed, stream))
            yield

    def _look_inside(
        self, student: nn.Module, teacher: nn.Module | None, channels: int, size: tuple[int, int]
    ) -> None:
        networks = (student, teacher)
        layers = [
            [] if network is None else [*stages(network, channels, size), PENULTIMATE] for network in networks
        ]
        names = self.objective.taps(*layers)
        shapes = [
            {} if network is None else feature_shapes(network, wanted, channels, size)
            for network, wanted in zip(networks, names, strict=True)
        ]
        with self._seeded("method/weights"):
            self.objective.build(*shapes)
        self._taps = {
            who: Taps(network, wanted)
            for who, network, wanted in zip(("student", "teacher"), networks, names, strict=True)
            if network is not None
        }

    def __call__(self, batch: Batch, done: float) -> DistillBatch:
        """What the objective's loss takes; ``done`` of the training lies behind."""
        images = batch.images.requires_grad_() if self.objective.input_gradients else batch.images
        further = self.objective.views(batch, self.seed)
        both = images if further is None else torch.cat([images, further])
        outputs, features = self.look_student(both)
        asked, inside = self._ask(batch, both, further is not None)
        whole = DistillBatch(outputs, batch.targets, asked, features, inside, batch.fake, images, done)
        if further is None:
            return whole
        count, copies = len(images), len(further) // len(images)
        part = torch.arange(len(both), device=images.device) < count
        doubled = dataclasses.replace(
            whole,
            targets=torch.cat([batch.targets] * (copies + 1)),
            fake=batch.fake.repeat(copies + 1),
            images=both,
        )
        return dataclasses.replace(doubled.rows(part), extra=doubled.rows(~part))

    def _ask(self, batch: Batch, images: Tensor, more: bool) -> tuple[Tensor | None, Mapping[str, Tensor]]:
        """The teacher's outputs and features; ``images``: the batch's, and where ``more`` is true further ones."""
        if not self.objective.asks_teacher:
            return None, {}
        inside = "teacher" in self._taps and self._taps["teacher"].names
        if inside or self.objective.input_gradients or more:
            return self.look_teacher(images)
        if self.memory is None:
            assert self.teacher is not None
            self.memory = TeacherOutputs(self.teacher, self.batches, self.width, self.fabric, self.answers)
        return self.memory.of(batch), {}

    def look_student(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Outputs and features, both float32."""
        return self._look("student", self.student, images)

    def look_teacher(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The same of the teacher; without a gradient, but where the objective asks for the images'."""
        assert self.teacher is not None
        with torch.set_grad_enabled(self.objective.input_gradients and torch.is_grad_enabled()):
            return self._look("teacher", self.teacher, images)

    def _look(self, who: str, network: inference.Predictor, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        # Gradients of gradients are taken at full precision; of the kinds of attention, only the plain one has any.
        twice = self.objective.input_gradients
        with sdpa_kernel(SDPBackend.MATH) if twice else self.fabric.autocast():
            if who in self._taps:
                outputs, features = self._taps[who](images)
                return outputs.float(), {name: feature.float() for name, feature in features.items()}
            return network(images).float(), {}

    def preparation(
        self, steps: int, progress: Progress, train: Callable[[nn.Module, str, int], None]
    ) -> Preparation:
        """What methods that train something first are given."""
        return Preparation(
            self.batches, self.look_student, torch.no_grad()(self.look_teacher), self.student, steps, self.fabric,
            self.seed, progress, train,
        )  # fmt: skip

    def close(self) -> None:
        """Take the hooks off both networks."""
        for taps in self._taps.values():
            taps.close()
