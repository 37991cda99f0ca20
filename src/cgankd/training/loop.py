"""The training loop of all predicting networks: the teacher, and students with or without distillation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.config.settings import Cosine, FitSettings, OneCycle, StepDecay
from cgankd.core import ranks, rng
from cgankd.core.profiling import part
from cgankd.core.runtime import fused
from cgankd.core.shared_rows import add_gradients, changed_by_first, check_batch
from cgankd.core.shared_weights import is_divided, whole
from cgankd.core.store import Work
from cgankd.data.batches import Batch, Batches, in_order
from cgankd.data.imageset import ImageSource, TrainingImages
from cgankd.distill import Objective, Preparation
from cgankd.distill.limits import check_adversarial, check_views
from cgankd.nets import compiled, inference, parts
from cgankd.training import scoring
from cgankd.training.adversarial import attacked
from cgankd.training.best import NOTHING, BestWeights, Kept
from cgankd.training.faults import NotFinite, is_finite, not_finite
from cgankd.training.forward import BatchForward, TeacherPasses

LOG_POINTS = 25  # number of entries in a history, evenly spaced over the steps


def fit(
    work: Work,
    student: nn.Module,
    objective: Objective,
    images: TrainingImages,
    settings: FitSettings,
    *,
    seed: int,
    teacher: inference.Predictor | None = None,
    kept: Kept = NOTHING,
) -> list[dict[str, Any]]:
    """Train ``student`` in place for ``settings.steps`` steps. It ends with its last weights.

    objective: the label's loss and the terms of stacked methods (:func:`cgankd.distill.create`). teacher:
    maps float images [B, C, H, W] in [0, 1] to outputs; if views recur, it runs once for each view. kept: what is kept
    beside the student, such as its weights at the best score on ``images.validation``.

    Returns the history: step, loss, learning rate; the label's share of the loss, if methods add terms; the share of
    steps whose gradient was clipped, if clipping is on; the metric on ``images.validation``, if there is one. Raises
    NotFinite if the loss, a weight or an output of the teacher is not finite, and UserError if a method needs the
    inside of a plain callable, labels of mixed images, or the teacher's outputs for attacked images.
    """
    assert kept.best is None or images.validation is not None, "the best weights need a validation split"
    check_batch(settings.batch_size, ranks.share()[1])
    check_views(objective, settings.augment)
    check_adversarial(objective, settings)
    batches = Batches(images, objective.task, settings.batch_size, settings.augment, seed, work.fabric.device)
    network = _network_to_train(work, student, objective, batches)
    choice = settings.compile_teacher
    compile_teacher = compiled.pays(work.fabric.device, settings.steps) if choice == "auto" else choice
    once = batches.seen_once(settings.steps)
    if batches.recurs and not isinstance(teacher, nn.Module):
        once = frozenset()  # a service may charge for an answer, and other trainings need the same ones
    passes = TeacherPasses(kept.teacher_outputs, work.deadline, compile_teacher, once)
    forward = BatchForward(network, teacher, objective, batches, work.fabric, seed, passes)
    numbers = itertools.count(1)

    def train(network: nn.Module, method: str, steps: int) -> None:
        loop = "-".join(filter(None, (work.loop, str(next(numbers)))))
        inner = dataclasses.replace(work, title=f"{work.title}: {method}", loop=loop)
        fit(
            inner, network, objective.teaching(method), dataclasses.replace(images, validation=None),
            settings.model_copy(update={"steps": steps}), seed=seed, teacher=teacher,
            kept=dataclasses.replace(kept, best=None),
        )  # fmt: skip

    with contextlib.closing(forward):
        fresh = not work.checkpoint().there
        if fresh:
            preparation = Preparation(forward, student, settings.steps, work, seed, train)
            changed_by_first(objective, lambda: objective.prepare(preparation))
        history = _minimise(work, forward, student, images.validation, settings, seed, kept.best, save_first=fresh)
    parts.put_together(network, student)
    student.eval()
    return history


def _network_to_train(work: Work, student: nn.Module, objective: Objective, batches: Batches) -> nn.Module:
    """The student on its device, or its copy in parts, if it learns from labels alone, as large teachers do.

    Methods may call the student in the first process alone.
    """
    network, views = student, batches.views
    if not objective.stacked:
        network = parts.in_parts(student, work.fabric, views.channels, (views.height, views.width))
    return (inference.place(network, work.fabric) if network is student else network).train()


def _minimise(
    work: Work,
    forward: BatchForward,
    scored: nn.Module,
    validation: ImageSource | None,
    settings: FitSettings,
    seed: int,
    best: BestWeights | None,
    save_first: bool,
) -> list[dict[str, Any]]:
    """All steps, or the remaining ones of a resumed run. save_first: save what the methods have trained before.

    scored: the student, which ``forward`` may have in parts; it gets their weights before it is scored.
    """
    student, objective, checkpoint = forward.student, forward.objective, work.checkpoint()
    trained = nn.ModuleDict({"student": student, "method": objective})
    weights = [weight for weight in trained.parameters() if weight.requires_grad]
    optimizer = _optimizer(work, weights, settings)
    clipping = _Clipping(objective.task.clip_norm if settings.clip_norm == "auto" else settings.clip_norm)
    modules: dict[str, nn.Module] = {"trained": trained, "clipping": clipping.to(work.fabric.device)}
    optimizers = {"sgd": optimizer}
    if save_first and checkpoint.due():
        checkpoint.save(0, modules, optimizers, [])
    start, history = checkpoint.load(modules, optimizers)
    if best is not None:
        best.resume(checkpoint.tensors, history)
    upcoming = contextlib.closing(in_order(forward.batches, start, settings.steps))
    with rng.restored(work.fabric.device), work.progress.bar(work.title, settings.steps) as bar, upcoming as batches:
        bar.images, bar.metric, bar.metric_unit = settings.batch_size, objective.task.metric, objective.task.metric_unit
        for step in range(start, settings.steps):
            rng.seed_torch(rng.key(seed, "fit", step) ^ ranks.share()[0], work.fabric.device)  # for dropout
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            with part("batch"):
                batch = next(batches)
            batch = _attacked(work, forward, batch, settings, rng.key(seed, "attack", step))
            inputs = forward(batch, step / settings.steps)
            with part("loss"):
                terms = objective.loss(inputs)
                loss = torch.stack(list(terms.values())).sum()
            with part("backward"):
                optimizer.zero_grad(set_to_none=True)
                work.fabric.backward(loss)
                add_gradients(student, objective)
            with part("optimizer"):
                clipping.clip(weights)
                optimizer.step()
            done = step + 1
            if done % max(1, settings.steps // LOG_POINTS) == 0 or done == settings.steps:
                check = functools.partial(_finite, work, loss, trained, inputs.teacher_outputs, settings, done)
                loss_now, rate = ranks.each_of_team(check)[0], learning_rate(settings, step)
                entry = {"step": done, "loss": loss_now, "learning_rate": rate}
                entry |= clipping.share() | _label_share(terms)
                if validation is not None:
                    entry |= _validation(work, student, scored, objective, validation)
                history.append(entry)
                bar.log(entry)
                if best is not None:
                    best.see(scored, done, entry["val"])
            bar.to(done)
            if checkpoint.due():
                checkpoint.save(done, modules, optimizers, history, {} if best is None else best.tensors)
    return history


def _attacked(work: Work, forward: BatchForward, batch: Batch, settings: FitSettings, seed: int) -> Batch:
    """The batch as the student sees it: attacked, where the settings say so."""
    if settings.adversarial is None:
        return batch
    return attacked(forward.student, batch, forward.objective.task, settings.adversarial, work.fabric, seed)


def _optimizer(work: Work, weights: list[nn.Parameter], settings: FitSettings) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(
        weights,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
        fused=fused(work.fabric.device) and not any(map(is_divided, weights)),  # torch has no such step for parts
    )
    if settings.momentum:  # fused steps fail where some weights get their first gradient later than others (ab)
        for weight in weights:
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer


def _finite(
    work: Work, loss: Tensor, trained: nn.Module, teacher_outputs: Tensor | None, settings: FitSettings, step: int
) -> float:
    """The loss, if it, the weights and the teacher's outputs are finite; else raises NotFinite."""
    value, where = float(loss.detach()), f"step {step} of {settings.steps}"
    if teacher_outputs is not None and not is_finite({"outputs": teacher_outputs}):
        fault = f"{work.title}: the teacher's outputs are not finite at {where}"
        further = "if it was trained here, a lower learning_rate for it may help"
        raise NotFinite(fault, f"allowed: a teacher whose outputs are finite for all training images; {further}")
    advice = f"a lower learning_rate than {settings.learning_rate:g} may help"
    if not math.isfinite(value):
        raise NotFinite(f"{work.title}: the loss is {value} at {where}", advice)
    if (name := not_finite(trained)) is not None:
        raise NotFinite(f"{work.title}: weight {name.removeprefix('student.')} is not finite at {where}", advice)
    return value


class _Clipping(nn.Module):
    """Clips gradients to a norm, if one is set, and counts clipped steps. The counts are saved in the checkpoint."""

    def __init__(self, norm: float | None) -> None:
        super().__init__()
        self.norm = norm
        # clipped steps, and all steps, since the last entry of the history
        self.register_buffer("counts", torch.zeros(2))

    counts: Tensor

    def clip(self, weights: list[nn.Parameter]) -> None:
        if self.norm is not None:
            above = whole(torch.nn.utils.clip_grad_norm_(weights, self.norm)) > self.norm
            self.counts += torch.stack([above.float(), torch.ones_like(above, dtype=torch.float32)])

    def share(self) -> dict[str, float]:
        """The share of clipped steps since the last call; empty if no norm is set."""
        if self.norm is None:
            return {}
        clipped, steps = self.counts.tolist()
        self.counts.zero_()
        return {"clipped": clipped / steps}


def _label_share(terms: dict[str, Tensor]) -> dict[str, float]:
    """The label's share of the loss, by absolute values, because the term of vid can be negative."""
    if len(terms) == 1:
        return {}
    sizes = {name: abs(float(term.detach())) for name, term in terms.items()}
    return {"label_share": sizes["label"] / sum(sizes.values()) if any(sizes.values()) else 1.0}


def _validation(
    work: Work, student: nn.Module, scored: nn.Module, objective: Objective, images: ImageSource
) -> dict[str, float]:
    with part("validation"):
        parts.put_together(student, scored)
        metric = scoring.metric(Work(work.fabric), scored, images.open(), objective.task)
        if scored is not student:
            scored.to("cpu")  # a device may not hold it whole while it is trained
    return {"val": metric}


def learning_rate(settings: FitSettings, step: int) -> float:
    """The learning rate at ``step`` (from 0). A pure function, so a resumed loop needs no scheduler state."""
    peak, done = settings.learning_rate, step / settings.steps
    match settings.schedule:
        case StepDecay(milestones=milestones):
            return float(peak * 0.1 ** sum(done >= milestone for milestone in milestones))
        case OneCycle(warmup=warmup):
            return one_cycle(peak, done, warmup)
        case Cosine():
            return one_cycle(peak, done, 0.0)
    return peak


def one_cycle(peak: float, done: float, warmup: float) -> float:
    """The rate after the share ``done`` of the steps: linear warm-up for the share ``warmup``, then cosine decay."""
    if done < warmup:
        return peak * (0.04 + 0.96 * done / warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (1.0 - warmup)))
