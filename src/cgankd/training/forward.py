"""Runs student and teacher on a batch, and returns the inputs of an objective's loss."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cgankd.core import ranks, rng
from cgankd.core.profiling import part
from cgankd.core.runtime import Fabric, to_device
from cgankd.core.shared_rows import all_rows, batch_statistics, own_rows
from cgankd.data.batches import Batch, Batches
from cgankd.distill import DistillBatch, NetworkFactory, Objective
from cgankd.distill.base import Outputs
from cgankd.distill.limits import check_answers_suffice
from cgankd.nets import inference
from cgankd.nets.compiled import Compiled
from cgankd.nets.feature_layers import map_layers
from cgankd.nets.precision import MixedPrecision
from cgankd.nets.taps import PENULTIMATE, Taps, feature_shapes
from cgankd.training.teacher_cache import TeacherOutputs


@dataclasses.dataclass(frozen=True)
class TeacherPasses:
    """How the teacher is asked. Nothing here changes its answers by more than rounding.

    outputs_folder: caches the outputs of this teacher on disk for other trainings; None: in memory. deadline: a value
    of time.monotonic(); after it the teacher computes no further outputs for the cache. compiled: whether passes of
    which nothing but the outputs is used are compiled. once: the sets of images whose views are seen once, so that
    their outputs are not worth keeping.
    """

    outputs_folder: Path | None = None
    deadline: float = math.inf
    compiled: bool = False
    once: frozenset[int] = frozenset()


class BatchForward:
    """Runs student and teacher on batches: their outputs, and the features that an objective reads.

    If all methods need only the teacher's outputs, and views recur, the teacher runs once on each view of an image, at
    float32, and its outputs are cached. Features are too large to cache, so if a method reads them, the teacher runs at
    every step. If no loss reads the teacher, it does not run.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: inference.Predictor | None,
        objective: Objective,
        batches: Batches,
        fabric: Fabric,
        seed: int,
        passes: TeacherPasses = TeacherPasses(),
    ) -> None:
        self.student, self.teacher, self.objective = student, teacher, objective
        self.batches, self.fabric, self.seed = batches, fabric, seed
        self.passes = passes
        self.num_outputs = objective.task.num_outputs
        self.cache: TeacherOutputs | None = None
        self._taps: dict[str, Taps] = {}
        if objective.needs_teacher and isinstance(teacher, nn.Module):
            inference.place(teacher, fabric).eval()
        channels, size = batches.views.channels, (batches.views.height, batches.views.width)
        teacher_module = teacher if isinstance(teacher, nn.Module) else None
        if teacher_module is None:
            check_answers_suffice(objective, "this one is a plain callable")
        with rng.seeded(seed, "method/networks", fabric.device):
            objective.networks(NetworkFactory(student, teacher_module, channels, self.num_outputs, size))
        if objective.looks_inside:
            self._tap_layers(student, teacher_module, channels, size)
        inference.place(objective, fabric)
        networks = {"student": student, "teacher": teacher}
        self._precision = {
            who: MixedPrecision(network, fabric, channels, size)
            for who, network in networks.items()
            if isinstance(network, nn.Module)
        }
        self._compiled = None
        if passes.compiled and teacher_module is not None and not objective.input_gradients:
            self._compiled = Compiled(teacher_module, self._precision["teacher"])

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
        with rng.seeded(self.seed, "method/weights", self.fabric.device):
            self.objective.build(*shapes)
        self._taps = {
            who: Taps(network, wanted)
            for who, network, wanted in zip(("student", "teacher"), networks, names, strict=True)
            if network is not None
        }

    def __call__(self, batch: Batch, done: float) -> DistillBatch:
        """The inputs of the objective's loss, for all rows of the batch; done: the share of the training that is done.

        Student and teacher run on the rows of this process; outputs and features of the others are collected.
        """
        views, whole = self.objective.views(batch, self.seed), batch.whole
        shown = batch.images if views is None else torch.cat([batch.images, views])
        count, copies = len(whole.index), len(shown) // len(batch.images)
        if self.objective.stacked:  # the label's loss alone reads no images
            shown = all_rows(shown, count, copies)
        if self.objective.input_gradients:
            shown.requires_grad_()
        own = own_rows(shown, copies) if self.objective.stacked else shown
        outputs, features = self._collected(self.student_forward(own), count, copies)
        teacher_outputs, teacher_features = self._run_teacher(batch, own, copies)
        inputs = DistillBatch(
            outputs, torch.cat([whole.targets] * copies), teacher_outputs, features, teacher_features,
            whole.fake.repeat(copies), shown, done, copies=copies,
        )  # fmt: skip
        if views is None:
            return inputs
        part = torch.arange(count * copies) < count
        return dataclasses.replace(inputs.rows(part), extra=inputs.rows(~part))

    def _collected(self, outputs: Outputs, count: int, copies: int) -> Outputs:
        """The outputs and features for the rows of all processes."""
        values, features = outputs
        return all_rows(values, count, copies), {
            name: all_rows(feature, count, copies) for name, feature in features.items()
        }

    def _run_teacher(self, batch: Batch, images: Tensor, copies: int) -> tuple[Tensor | None, Mapping[str, Tensor]]:
        """The teacher's outputs and features for all rows. images: the batch's, and extra views, copies - 1 of each."""
        if not self.objective.asks_teacher:
            return None, {}
        with part("teacher"):
            return self._ask_teacher(batch, images, copies)

    def _ask_teacher(self, batch: Batch, images: Tensor, copies: int) -> Outputs:
        inside = "teacher" in self._taps and self._taps["teacher"].names
        once, sets = self.passes.once, self.batches.sets
        new_mix = batch.mixed and (batch.number is None or batch.all is not None)  # or other processes have its images
        fresh = len(once) == len(sets) or new_mix
        if inside or self.objective.input_gradients or copies > 1 or fresh:
            return self._ask_fresh(images, len(batch.whole.index), copies)
        if not once or batch.all is not None:  # images of other processes are not here
            return self._cache().of(batch), {}
        end = self.batches.streams[0][2]  # of the first set's rows
        parts = (batch.rows(slice(None, end)), batch.rows(slice(end, None)))
        return torch.cat(
            [
                self.teacher_forward(part.images)[0] if number in once else self._cache().of(part)
                for number, part in enumerate(parts)
            ]
        ), {}

    def _ask_fresh(self, images: Tensor, count: int, copies: int) -> Outputs:
        """The teacher's outputs and features for all rows, from those of this process."""
        if ranks.share()[1] == 1 or inference.is_of_networks(self.teacher):
            return self._collected(self.teacher_forward(images), count, copies)
        # a service may charge for an answer, and the first process alone keeps the answers
        every = all_rows(images, count, copies)
        outputs = ranks.first_of_team(lambda: self.teacher_forward(every)[0].cpu())
        return to_device(outputs, self.fabric.device), {}

    def _cache(self) -> TeacherOutputs:
        if self.cache is None:
            assert self.teacher is not None
            folder, deadline = self.passes.outputs_folder, self.passes.deadline
            self.cache = TeacherOutputs(self.teacher, self.batches, self.num_outputs, self.fabric, folder, deadline)
        return self.cache

    def student_forward(self, images: Tensor) -> Outputs:
        """Outputs and features, both float32."""
        with part("student"), batch_statistics(twice=self.objective.input_gradients):
            return self._run("student", self.student, images)

    def teacher_forward(self, images: Tensor) -> Outputs:
        """The same of the teacher, without gradients unless the objective needs those with respect to the images."""
        assert self.teacher is not None
        with torch.set_grad_enabled(self.objective.input_gradients and torch.is_grad_enabled()):
            return self._run("teacher", self._compiled or self.teacher, images)

    def _run(self, who: str, network: inference.Predictor, images: Tensor) -> Outputs:
        # Second-order gradients need full precision, and attention's MATH kernel, the only one that supports them.
        second_order = self.objective.input_gradients
        precision = self._precision.get(who)
        lowered = contextlib.nullcontext() if precision is None else precision.autocast()
        with sdpa_kernel(SDPBackend.MATH) if second_order else lowered:
            if who in self._taps and self._taps[who].names:
                outputs, features = self._taps[who](images)
                return inference.plain(outputs), {name: inference.plain(feature) for name, feature in features.items()}
            return inference.plain(network(images)), {}

    def close(self) -> None:
        """Remove the hooks from both networks, and what was compiled."""
        if self._compiled is not None:
            self._compiled.close()
        for taps in self._taps.values():
            taps.close()
        for precision in self._precision.values():
            precision.close()
