"""The one training loop for predictors: teacher, NOKD student, control, distilled student."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import counter, evaluate
from cgankd.checkpoint import Checkpoint
from cgankd.data.batches import Batch, Batches
from cgankd.data.imageset import ImageSet
from cgankd.distill.method import DistillBatch, Method
from cgankd.errors import TrainingError
from cgankd.progress import SILENT, Progress
from cgankd.recipe import FitSettings
from cgankd.task import Task

LOG_POINTS = 25  # entries of a history, evenly spaced over the steps


def fit(
    student: nn.Module,
    method: Method,
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

    real, fake: what it is trained on; ``real_share`` of each batch is real, or, where it is None, all images are
    shuffled together.
    teacher: maps float images [B, C, H, W] in [0, 1] to outputs; asked once per view of an image where views recur.
    Returns the history: step, loss, learning rate and, where ``validation`` is given, the metric on it.
    Raises TrainingError where the loss is not finite.
    """
    evaluate.place(student, fabric).train()
    method.to(fabric.device)
    trained = nn.ModuleDict({"student": student, "method": method})
    weights = list(trained.parameters())
    optimizer = torch.optim.SGD(
        weights,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
        fused=fabric.device.type in {"cpu", "cuda"},
    )
    batches = Batches(
        real, fake, task, settings.batch_size, settings.augment, seed, fabric.device, share=real_share
    )
    checkpoint = checkpoint or Checkpoint(None)
    start, history = checkpoint.load({"trained": trained}, {"sgd": optimizer})
    memory = None
    if method.needs_teacher:
        assert teacher is not None
        memory = TeacherOutputs(teacher, batches, task.num_outputs, fabric)
    log_every = max(1, settings.steps // LOG_POINTS)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices), progress.bar(title, settings.steps) as bar:
        for step in range(start, settings.steps):
            torch.manual_seed(counter.key(seed, "fit", step))  # dropout
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            batch = batches.at(step)
            with fabric.autocast():
                outputs = student(batch.images).float()
            terms = method.loss(
                DistillBatch(
                    outputs=outputs,
                    targets=batch.targets,
                    teacher_outputs=memory.of(batch) if memory else None,
                    student_features={},
                    teacher_features={},
                    fake=batch.fake,
                )
            )
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
    student.eval()
    return history


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
        every = torch.arange(first, first + count, device=self.table.device)
        for index in every.split(self.BLOCK):
            self.table[view, index] = self._ask(self.batches.views.draw(index, torch.full_like(index, view)))

    @torch.no_grad()
    def _ask(self, images: Tensor) -> Tensor:
        with self.fabric.autocast():
            return self.teacher(images).float()
