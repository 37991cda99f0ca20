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

from cgankd import counter, evaluate
from cgankd.data.batches import Batch, Batches
from cgankd.data.imageset import ImageSet
from cgankd.distill import DistillBatch, Maker, Objective, Preparation, serving
from cgankd.errors import UserError
from cgankd.files import load_tensors, save_tensors
from cgankd.nets.stages import stages
from cgankd.nets.taps import PENULTIMATE, Taps, feature_shapes
from cgankd.progress import Progress
from cgankd.settings import AugmentSettings, FitSettings
from cgankd.task import Task


def rehearse(
    student: nn.Module,
    teacher: evaluate.Predictor | None,
    objective: Objective,
    task: Task,
    real: ImageSet,
    augment: AugmentSettings,
    fabric: Fabric,
) -> None:
    """Raise UserError for what the objective can't do with these networks and images; nothing is trained.

    It goes as far as training does before its first step: networks and layers are made, layers are looked for, and
    further views are drawn, of two images. teacher: None where one that only answers is not at hand. The objective
    is used up.
    """
    check_views(objective, task, augment)
    few = real.take(torch.arange(min(2, len(real))))
    batches = Batches(few, None, task, len(few), augment, 0, fabric.device)
    sight = Sight(student, teacher, objective, batches, task, fabric, 0)
    objective.views(batches.at(0), 0)
    sight.close()


def check_views(objective: Objective, task: Task, augment: AugmentSettings) -> None:
    """UserError where images are mixed but the teacher is needed, whose outputs belong to whole images."""
    if objective.needs_teacher and task.mixable and augment.cutmix:
        raise UserError(
            f"augment.cutmix={augment.cutmix:g}, but method {objective.name!r} asks the teacher about each image "
            "by itself; allowed: 0 with a method that needs the teacher"
        )


def check_adversarial(objective: Objective, settings: FitSettings) -> None:
    """UserError where images are attacked but the teacher is needed, whose outputs belong to images as they are."""
    if objective.needs_teacher and settings.adversarial is not None:
        raise UserError(
            f"fit.adversarial is set, but method {objective.name!r} asks the teacher about images as they are; "
            "allowed: adversarial training by labels alone (a teacher, nokd, nokd_longer, cgan)"
        )


def check_answers_suffice(objective: Objective, but: str) -> None:
    """UserError where a method needs more of the teacher than its outputs; ``but`` says why it has no more."""
    for method, _ in objective.stacked:
        if method.needs() in ("inside", "gradient"):
            does = "looks inside" if method.needs() == "inside" else "differentiates"
            raise UserError(
                f"method {method.name!r} {does} the teacher, but {but}; "
                "allowed: a teacher that is a module, or a method that matches outputs: "
                f"{', '.join(serving(objective.task, needs='outputs'))}"
            )


class Sight:
    """Student and teacher on a batch: their outputs, and the features that an objective looks at.

    Where outputs are all that is looked at, each view of an image is shown to the teacher once; features are too
    large to keep, so a method that looks inside the teacher has it run beside the student. Where no method's loss
    looks at the teacher, it is not asked.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: evaluate.Predictor | None,
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
            evaluate.place(teacher, fabric).eval()
        channels, size = batches.views.channels, (batches.views.height, batches.views.width)
        whole = teacher if isinstance(teacher, nn.Module) else None
        if whole is None:
            check_answers_suffice(objective, "this one is a plain callable")
        with self._seeded("method/networks"):
            objective.networks(Maker(student, whole, channels, task.num_outputs, size))
        if objective.looks_inside:
            self._look_inside(student, whole, channels, size)
        evaluate.place(objective, fabric)

    @contextlib.contextmanager
    def _seeded(self, stream: str) -> Iterator[None]:
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(counter.key(self.seed, stream))
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

    def _look(self, who: str, network: evaluate.Predictor, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
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


class TeacherOutputs:
    """The teacher's outputs on training views; where views recur, each view of each image is asked for once.

    An output is only ever served for the view it was computed on. Views are computed whole, in blocks of a fixed
    make-up, so that the last bits don't depend on when they were asked for (before a kill or after).
    folder: this teacher's; what it said is kept there for other runs on the same views, as the rows of a table are.
    """

    BLOCK = 500
    KEPT = 2**30  # bytes of all views' outputs, at most, of a fit whose teacher's answers are kept in files

    def __init__(
        self,
        teacher: evaluate.Predictor,
        batches: Batches,
        width: int,
        fabric: Fabric,
        folder: Path | None = None,
    ) -> None:
        self.teacher, self.batches, self.fabric, self.width = teacher, batches, fabric, width
        self.folder = folder if batches.recurring * batches.count * width * 4 <= self.KEPT else None
        if isinstance(teacher, nn.Module):
            evaluate.place(teacher, fabric).eval()
        self.known: dict[tuple[int, int], Tensor] = {}  # (set of images, view) -> outputs, float32 [images, width]

    def of(self, batch: Batch) -> Tensor:
        """float32 [B, number of outputs], for the batch's own views."""
        if not self.batches.recurring:
            return self._ask(batch.images)
        found = torch.empty(len(batch.index), self.width)
        for number, (first, count) in enumerate(self.batches.sets):
            inside = (batch.index >= first) & (batch.index < first + count)
            for view in batch.view[inside].unique().tolist():
                if (number, view) not in self.known:
                    self.known[number, view] = self._whole(number, view)
                rows = (inside & (batch.view == view)).nonzero().squeeze(1)
                found[rows] = self.known[number, view][batch.index[rows] - first]
        return found.to(self.fabric.device)

    def _whole(self, number: int, view: int) -> Tensor:
        """Outputs on one view of each image of a set: read where they are kept, or else asked for."""
        first, count = self.batches.sets[number]
        path = None
        if self.folder is not None:
            path = self.folder / f"{self.batches.key(number)}-{self.BLOCK}-{view}.safetensors"
            with contextlib.suppress(UserError, OSError):  # not there, or spoilt
                kept = load_tensors(path)[0].get("outputs")
                if kept is not None and kept.shape == (count, self.width):
                    return kept
        blocks = torch.arange(first, first + count).split(self.BLOCK)
        parts = [self._ask(self.batches.views.draw(index, torch.full_like(index, view))) for index in blocks]
        outputs = torch.cat(parts).cpu()  # all views of 100,000 images are more than a device may have to spare
        if path is not None:
            with contextlib.suppress(OSError):  # a full disk; nothing needs the file
                save_tensors(path, {"outputs": outputs})
        return outputs

    @torch.no_grad()
    def _ask(self, images: Tensor) -> Tensor:
        with self.fabric.autocast():
            return self.teacher(images).float()
