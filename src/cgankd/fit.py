"""The one training loop for predictors: teacher, NOKD student, control, distilled student."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import counter, evaluate
from cgankd.checkpoint import Checkpoint
from cgankd.data.batches import Batch, Batches
from cgankd.data.imageset import ImageSet
from cgankd.distill import DistillBatch, Maker, Objective, Preparation, create
from cgankd.errors import TrainingError, UserError
from cgankd.nets.stages import stages
from cgankd.nets.taps import PENULTIMATE, Taps, feature_shapes
from cgankd.progress import SILENT, Progress
from cgankd.settings import AugmentSettings, FitSettings
from cgankd.task import Task

LOG_POINTS = 25  # entries of a history, evenly spaced over the steps


def fit(
    student: nn.Module,
    objective: Objective,
    task: Task,
    real: ImageSet,
    settings: FitSettings,
    fabric: Fabric,
    *,
    seed: int,
    fake: ImageSet | None = None,
    real_share: float | None = None,
    teacher: evaluate.Predictor | None = None,
    validation: ImageSet | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = SILENT,
    title: str = "train",
) -> list[dict[str, Any]]:
    """Train ``student`` in place for ``settings.steps`` steps; the last weights stay (nothing is picked).

    objective: the label's loss and the terms of the methods stacked on it (:func:`cgankd.distill.create`).
    real, fake: what it is trained on; ``real_share`` of each batch is real, or, where it is None, all images are
    shuffled together.
    teacher: maps float images [B, C, H, W] in [0, 1] to outputs; asked once per view of an image where views recur.
    Returns the history: step, loss, learning rate and, where ``validation`` is given, the metric on it.
    Raises TrainingError where the loss is not finite, UserError where a method looks inside a plain callable or
    would show the teacher mixed images.
    """
    check_views(objective, task, settings.augment)
    evaluate.place(student, fabric).train()
    batches = Batches(
        real, fake, task, settings.batch_size, settings.augment, seed, fabric.device, share=real_share
    )
    checkpoint = checkpoint or Checkpoint(None)
    sight = Sight(student, teacher, objective, batches, task, fabric, seed)
    if checkpoint.path is None or not checkpoint.path.is_file():

        def train(network: nn.Module, method: str, steps: int) -> None:
            shorter = settings.model_copy(update={"steps": steps})
            fit(
                network, create(method, task, objective.settings), task, real, shorter, fabric, seed=seed,
                fake=fake, real_share=real_share, teacher=teacher, progress=progress, title=f"{title}: {method}",
            )  # fmt: skip

        objective.prepare(sight.preparation(settings.steps, seed, progress, train))
    trained = nn.ModuleDict({"student": student, "method": objective})
    weights = [weight for weight in trained.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(
        weights,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
        fused=fabric.device.type in {"cpu", "cuda"},
    )
    start, history = checkpoint.load({"trained": trained}, {"sgd": optimizer})
    log_every = max(1, settings.steps // LOG_POINTS)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices), progress.bar(title, settings.steps) as bar:
        for step in range(start, settings.steps):
            torch.manual_seed(counter.key(seed, "fit", step))  # dropout
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            terms = objective.loss(sight(batches.at(step), step / settings.steps))
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)
            optimizer.step()

            done = step + 1
            if done % log_every == 0 or done == settings.steps:
                entry = {"step": done, "loss": float(loss.detach()), "learning_rate": learning_rate(settings, step)}
                if not math.isfinite(entry["loss"]):
                    raise TrainingError(
                        f"{title}: the loss is {entry['loss']} at step {done}; a lower learning_rate "
                        f"than {settings.learning_rate:g} may help"
                    )
                if validation is not None:
                    entry["val"] = evaluate.metric(student, validation, task, fabric)[0]
                history.append(entry)
                bar.to(done, f"loss {entry['loss']:.3g}")
            if checkpoint.due() and done < settings.steps:
                checkpoint.save(done, {"trained": trained}, {"sgd": optimizer}, history)
    sight.close()
    student.eval()
    return history


def check_views(objective: Objective, task: Task, augment: AugmentSettings) -> None:
    """UserError where images are mixed but the teacher is needed, whose outputs belong to whole images."""
    if objective.needs_teacher and task.mixable and augment.cutmix:
        raise UserError(
            f"augment.cutmix={augment.cutmix:g}, but method {objective.name!r} asks the teacher about each image "
            "by itself; allowed: 0 with a method that needs the teacher"
        )


def check_answers_suffice(objective: Objective, but: str) -> None:
    """UserError where a method needs more of the teacher than its outputs; ``but`` says why it has no more."""
    for method, _ in objective.stacked:
        if method.needs() != "outputs":
            does = "looks inside" if method.needs() == "inside" else "differentiates"
            raise UserError(
                f"method {method.name!r} {does} the teacher, but {but}; "
                "allowed: a teacher that is a module, or a method that matches outputs"
            )


def learning_rate(settings: FitSettings, step: int) -> float:
    """The rate at ``step`` (from 0): a pure function, so a resumed loop needs no scheduler's state."""
    peak, done = settings.learning_rate, step / settings.steps
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "step":
        return float(peak * 0.1 ** sum(done >= milestone for milestone in settings.milestones))
    warmup = settings.warmup if settings.schedule == "onecycle" else 0.0
    if done < warmup:
        return peak * (0.04 + 0.96 * done / warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (1.0 - warmup)))


class Sight:
    """Student and teacher on a batch: their outputs, and the features that an objective looks at.

    Where outputs are all that is looked at, each view of an image is shown to the teacher once; features are too
    large to keep, so a method that looks inside the teacher has it run beside the student.
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
    ) -> None:
        self.student, self.teacher, self.objective = student, teacher, objective
        self.batches, self.fabric = batches, fabric
        self.memory: TeacherOutputs | None = None
        self._taps: dict[str, Taps] = {}
        if objective.needs_teacher:
            assert teacher is not None
            if isinstance(teacher, nn.Module):
                evaluate.place(teacher, fabric).eval()
            self.memory = TeacherOutputs(teacher, batches, task.num_outputs, fabric)
        channels, size = batches.views.channels, (batches.views.height, batches.views.width)
        whole = teacher if isinstance(teacher, nn.Module) else None
        if whole is None:
            check_answers_suffice(objective, "this one is a plain callable")
        with self._seeded(seed, "method/networks"):
            objective.networks(Maker(student, whole, channels, task.num_outputs, size))
        if objective.looks_inside:
            self._look_inside(student, whole, channels, size, seed)
        evaluate.place(objective, fabric)

    @contextlib.contextmanager
    def _seeded(self, seed: int, stream: str) -> Iterator[None]:
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(counter.key(seed, stream))
            yield

    def _look_inside(
        self, student: nn.Module, teacher: nn.Module | None, channels: int, size: tuple[int, int], seed: int
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
        with self._seeded(seed, "method/weights"):
            self.objective.build(*shapes)
        self._taps = {
            who: Taps(network, wanted)
            for who, network, wanted in zip(("student", "teacher"), networks, names, strict=True)
            if network is not None
        }

    def __call__(self, batch: Batch, done: float) -> DistillBatch:
        """What the objective's loss takes; ``done`` of the training lies behind."""
        images = batch.images.requires_grad_() if self.objective.input_gradients else batch.images
        further = self.objective.views(images)
        both = images if further is None else torch.cat([images, further])
        outputs, features = self.look_student(both)
        seen: tuple[Tensor | None, Mapping[str, Tensor]] = (None, {})
        if self.memory is not None:
            online = self.objective.needs_inside or self.objective.input_gradients or further is not None
            seen = self.look_teacher(both) if online else (self.memory.of(batch), {})
        whole = DistillBatch(outputs, batch.targets, seen[0], features, seen[1], batch.fake, images, done)
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

    def look_student(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Outputs and features, both float32."""
        return self._look("student", self.student, images)

    def look_teacher(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The same of the teacher; without a gradient, but where the objective asks for the images'."""
        assert self.teacher is not None
        with torch.set_grad_enabled(self.objective.input_gradients and torch.is_grad_enabled()):
            return self._look("teacher", self.teacher, images)

    def _look(self, who: str, network: evaluate.Predictor, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        # gradients of gradients are taken at full precision
        with contextlib.nullcontext() if self.objective.input_gradients else self.fabric.autocast():
            if who in self._taps:
                outputs, features = self._taps[who](images)
                return outputs.float(), {name: feature.float() for name, feature in features.items()}
            return network(images).float(), {}

    def preparation(
        self, steps: int, seed: int, progress: Progress, train: Callable[[nn.Module, str, int], None]
    ) -> Preparation:
        """What methods that train something first are given."""
        return Preparation(
            self.batches, self.look_student, torch.no_grad()(self.look_teacher), self.student, steps, self.fabric,
            seed, progress, train,
        )  # fmt: skip

    def close(self) -> None:
        """Take the hooks off both networks."""
        for taps in self._taps.values():
            taps.close()


class TeacherOutputs:
    """The teacher's outputs on training views; where views recur, each view of each image is asked for once.

    An output is only ever served for the view it was computed on. Views are computed whole, in blocks of a fixed
    make-up, so that the last bits don't depend on when they were asked for (before a kill or after).
    """

    BLOCK = 500

    def __init__(self, teacher: evaluate.Predictor, batches: Batches, width: int, fabric: Fabric) -> None:
        self.teacher, self.batches, self.fabric = teacher, batches, fabric
        if isinstance(teacher, nn.Module):
            evaluate.place(teacher, fabric).eval()
        self.table = torch.empty(batches.recurring, batches.count, width, device=fabric.device)
        self.known: set[tuple[int, int]] = set()  # (stream, view)

    def of(self, batch: Batch) -> Tensor:
        """float32 [B, number of outputs], for the batch's own views."""
        if not self.batches.recurring:
            return self._ask(batch.images)
        for stream, (first, count, _) in enumerate(self.batches.streams):
            inside = (batch.index >= first) & (batch.index < first + count)
            for view in batch.view[inside].unique().tolist():
                if (stream, view) not in self.known:
                    self._learn(first, count, view)
                    self.known.add((stream, view))
        return self.table[batch.view.to(self.table.device), batch.index.to(self.table.device)]

    def _learn(self, first: int, count: int, view: int) -> None:
        for index in torch.arange(first, first + count).split(self.BLOCK):
            asked = self._ask(self.batches.views.draw(index, torch.full_like(index, view)))
            self.table[view, index.to(self.table.device)] = asked

    @torch.no_grad()
    def _ask(self, images: Tensor) -> Tensor:
        with self.fabric.autocast():
            return self.teacher(images).float()
