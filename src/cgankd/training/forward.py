"""Student and teacher on a batch: what the loss of an objective takes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cgankd.core import rng
from cgankd.data.batches import Batch, Batches
from cgankd.distill import DistillBatch, Maker, Objective
from cgankd.distill.limits import check_answers_suffice
from cgankd.nets import inference
from cgankd.nets.feature_layers import map_layers
from cgankd.nets.precision import MixedPrecision
from cgankd.nets.taps import PENULTIMATE, Taps, feature_shapes
from cgankd.training.teacher_cache import TeacherOutputs


class BatchForward:
    """Student and teacher on a batch: their outputs, and the features that an objective looks at.

    Where a method needs the teacher's outputs alone, each view of an image is shown to the teacher once. Features are
    too large to keep, so for a method that looks inside the teacher, it runs beside the student. Where no loss looks
    at the teacher, it is not asked.

    outputs_folder: where the outputs of this very teacher are kept for other trainings; None: nowhere. deadline:
    of time.monotonic, after which the teacher is not asked about a further view of all images.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: inference.Predictor | None,
        objective: Objective,
        batches: Batches,
        fabric: Fabric,
        seed: int,
        outputs_folder: Path | None = None,
        deadline: float = math.inf,
    ) -> None:
        self.student, self.teacher, self.objective = student, teacher, objective
        self.batches, self.fabric, self.seed = batches, fabric, seed
        self.outputs_folder, self.deadline = outputs_folder, deadline
        self.num_outputs = objective.task.num_outputs
        self.cache: TeacherOutputs | None = None
        self._taps: dict[str, Taps] = {}
        if objective.needs_teacher and isinstance(teacher, nn.Module):
            inference.place(teacher, fabric).eval()
        channels, size = batches.views.channels, (batches.views.height, batches.views.width)
        whole = teacher if isinstance(teacher, nn.Module) else None
        if whole is None:
            check_answers_suffice(objective, "this one is a plain callable")
        with self._seeded("method/networks"):
            objective.networks(Maker(student, whole, channels, self.num_outputs, size))
        if objective.looks_inside:
            self._tap_layers(student, whole, channels, size)
        inference.place(objective, fabric)
        networks = {"student": student, "teacher": teacher}
        self._precision = {
            who: MixedPrecision(network, fabric, channels, size)
            for who, network in networks.items()
            if isinstance(network, nn.Module)
        }

    @contextlib.contextmanager
    def _seeded(self, stream: str) -> Iterator[None]:
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(rng.key(self.seed, stream))
            yield

    def _tap_layers(self, student: nn.Module, teacher: nn.Module | None, channels: int, size: tuple[int, int]) -> None:
        networks = (student, teacher)
        layers = [
            [] if network is None else [*map_layers(network, channels, size), PENULTIMATE] for network in networks
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
        outputs, features = self.student_forward(both)
        asked, inside = self._ask_teacher(batch, both, further is not None)
        whole = DistillBatch(outputs, batch.targets, asked, features, inside, batch.fake, images, done)
        if further is None:
            return whole
        count, copies = len(images), len(further) // len(images)
        part = torch.arange(len(both)) < count
        doubled = dataclasses.replace(
            whole,
            targets=torch.cat([batch.targets] * (copies + 1)),
            fake=batch.fake.repeat(copies + 1),
            images=both,
        )
        return dataclasses.replace(doubled.rows(part), extra=doubled.rows(~part))

    def _ask_teacher(self, batch: Batch, images: Tensor, more: bool) -> tuple[Tensor | None, Mapping[str, Tensor]]:
        """The teacher's outputs and features; ``images``: the batch's, and where ``more`` is true further ones."""
        if not self.objective.asks_teacher:
            return None, {}
        inside = "teacher" in self._taps and self._taps["teacher"].names
        if inside or self.objective.input_gradients or more or batch.mixed:
            return self.teacher_forward(images)
        if self.cache is None:
            assert self.teacher is not None
            self.cache = TeacherOutputs(
                self.teacher, self.batches, self.num_outputs, self.fabric, self.outputs_folder, self.deadline
            )
        return self.cache.of(batch), {}

    def student_forward(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Outputs and features, both float32."""
        return self._run("student", self.student, images)

    def teacher_forward(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The same of the teacher; without a gradient, but where the objective asks for the images'."""
        assert self.teacher is not None
        with torch.set_grad_enabled(self.objective.input_gradients and torch.is_grad_enabled()):
            return self._run("teacher", self.teacher, images)

    def _run(self, who: str, network: inference.Predictor, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        # Gradients of gradients are taken at full precision; of the kinds of attention, only the plain one has any.
        twice = self.objective.input_gradients
        precision = self._precision.get(who)
        lowered = contextlib.nullcontext() if precision is None else precision.autocast()
        with sdpa_kernel(SDPBackend.MATH) if twice else lowered:
            if who in self._taps:
                outputs, features = self._taps[who](images)
                return inference.plain(outputs), {name: inference.plain(feature) for name, feature in features.items()}
            return inference.plain(network(images)), {}

    def close(self) -> None:
        """Take the hooks off both networks."""
        for taps in self._taps.values():
            taps.close()
        for precision in self._precision.values():
            precision.close()
