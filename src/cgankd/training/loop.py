"""The one training loop for predictors: teacher, NOKD student, control, distilled student."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.settings import FitSettings
from cgankd.core import rng
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import TrainingError
from cgankd.core.progress import SILENT, Progress
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet
from cgankd.distill import Objective, create
from cgankd.distill.limits import check_adversarial, check_views
from cgankd.nets import inference
from cgankd.tasks import Task
from cgankd.training import scoring
from cgankd.training.adversarial import attacked
from cgankd.training.forward import Sight

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
    teacher: inference.Predictor | None = None,
    validation: ImageSet | None = None,
    answers: Path | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = SILENT,
    title: str = "train",
) -> list[dict[str, Any]]:
    """Train ``student`` in place for ``settings.steps`` steps; the last weights stay (nothing is picked).

    objective: the label's loss and the terms of the methods stacked on it (:func:`cgankd.distill.create`).
    real, fake: what it is trained on; ``real_share`` of each batch is real, or, where it is None, all images are
    shuffled together.
    teacher: maps float images [B, C, H, W] in [0, 1] to outputs; asked once per view of an image where views recur.
    answers: this teacher's folder, where what it says of views is kept for other fits (:class:`TeacherOutputs`).
    checkpoint: where it stands, and beside it where a network stands that a method trains first.
    Returns the history: step, loss, learning rate, what share of the loss is the label's where it is not all, and,
    where ``validation`` is given, the metric on it.
    Raises TrainingError where the loss is not finite, UserError where a method looks inside a plain callable or
    would show the teacher mixed or attacked images.
    """
    check_views(objective, task, settings.augment)
    check_adversarial(objective, settings)
    inference.place(student, fabric).train()
    batches = Batches(
        real, fake, task, settings.batch_size, settings.augment, seed, fabric.device, share=real_share
    )
    checkpoint = checkpoint or Checkpoint(None)
    sight = Sight(student, teacher, objective, batches, task, fabric, seed, answers)
    fresh = checkpoint.path is None or not checkpoint.path.is_file()
    if fresh:
        lesson = itertools.count(1)

        def train(network: nn.Module, method: str, steps: int) -> None:
            shorter = settings.model_copy(update={"steps": steps})
            fit(
                network, create(method, task, objective.settings), task, real, shorter, fabric, seed=seed,
                fake=fake, real_share=real_share, teacher=teacher, answers=answers,
                checkpoint=checkpoint.beside(str(next(lesson))), progress=progress, title=f"{title}: {method}",
            )  # fmt: skip

        objective.prepare(sight.preparation(settings.steps, progress, train))
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
    if fresh and checkpoint.due():  # what was trained first took its time
        checkpoint.save(0, {"trained": trained}, {"sgd": optimizer}, [])
    start, history = checkpoint.load({"trained": trained}, {"sgd": optimizer})
    log_every = max(1, settings.steps // LOG_POINTS)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices), progress.bar(title, settings.steps) as bar:
        for step in range(start, settings.steps):
            torch.manual_seed(rng.key(seed, "fit", step))  # dropout
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            batch = batches.at(step)
            if settings.adversarial is not None:
                batch = attacked(student, batch, task, settings.adversarial, fabric, rng.key(seed, "attack", step))
            terms = objective.loss(sight(batch, step / settings.steps))
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
                if len(terms) > 1:
                    # by size, for vid's term may be below 0
                    sizes = {name: abs(float(term.detach())) for name, term in terms.items()}
                    entry["label_share"] = sizes["label"] / sum(sizes.values()) if any(sizes.values()) else 1.0
                if validation is not None:
                    entry["val"] = scoring.metric(student, validation, task, fabric)[0]
                history.append(entry)
                bar.to(done, f"loss {entry['loss']:.3g}")
            if checkpoint.due() and done < settings.steps:
                checkpoint.save(done, {"trained": trained}, {"sgd": optimizer}, history)
    sight.close()
    student.eval()
    return history


def learning_rate(settings: FitSettings, step: int) -> float:
    """The rate at ``step`` (from 0): a pure function, so a resumed loop needs no scheduler's state."""
    peak, done = settings.learning_rate, step / settings.steps
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "step":
        return float(peak * 0.1 ** sum(done >= milestone for milestone in settings.milestones))
    return one_cycle(peak, done, settings.warmup if settings.schedule == "onecycle" else 0.0)


def one_cycle(peak: float, done: float, warmup: float) -> float:
    """The rate when ``done`` of the steps lie behind: up in a line for ``warmup`` of them, then down a cosine."""
    if done < warmup:
        return peak * (0.04 + 0.96 * done / warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (1.0 - warmup)))
