"""Training a conditional GAN: one loop for classes and scalars, because the label space draws the batches."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any, NamedTuple

import torch
from torch import nn

from cgankd.config.settings import GanSettings, ScalarLabelSettings
from cgankd.core import ranks, rng
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import TrainingError
from cgankd.core.runtime import Fabric
from cgankd.core.shared_rows import changed_by_first, check_batch
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import GanSampler, new_networks
from cgankd.gan.guidance import Guidance
from cgankd.gan.step import GanStep, Networks
from cgankd.labels import LabelSpace, label_embedding, label_space
from cgankd.nets import inference
from cgankd.tasks import Task
from cgankd.training.faults import not_finite

LOG_POINTS = 50
GOOD_POINTS = 10  # how often the state is kept to go back to
SLOWER = 0.1  # of both learning rates, in the second try
LEAST_SPREAD = 1e-3  # the standard deviation per pixel over a batch, where pixels are in [-1, 1]
STATISTICS_BATCHES = 20  # generator batches over which its final batch-norm statistics are computed


class TrainedGan(NamedTuple):
    """sampler: the moving average of the generator. history: losses and logits. second_try: a sentence, if the
    training failed once and continued from a good state with lower learning rates."""

    sampler: GanSampler
    history: list[dict[str, Any]]
    second_try: str | None


def train_gan(
    work: Work,
    train: ImageSet,
    task: Task,
    settings: GanSettings,
    scalar: ScalarLabelSettings | None = None,
    *,
    seed: int,
    guidance: Guidance | None = None,
) -> TrainedGan:
    """Train on ``train``.

    guidance: the teacher in the generator's loss. Where a loss or a weight is not finite, or all generated images are
    alike, training goes back to the last good state, once, and continues with a tenth of both learning rates. Raises
    TrainingError where this happens again, or where ``work`` has no folder to keep that state in.
    """
    check_batch(settings.batch_size, ranks.share()[1])
    checkpoint, fabric = work.checkpoint(), work.fabric
    labels = task.to_target(train.labels)
    space = label_space(task, labels, scalar)
    with rng.seeded(seed, "gan/weights", fabric.device):
        embedding = label_embedding(task, scalar, settings.label_dim)
        if not checkpoint.there:
            changed_by_first(embedding, lambda: space.train_embedding(work, embedding, train, task, seed))
        generator, discriminator = new_networks(settings, embedding.cpu(), train.channels, train.size)
    inference.place(generator, fabric)
    inference.place(discriminator, fabric)
    average = copy.deepcopy(generator).requires_grad_(False)
    networks = Networks(generator, discriminator, average)
    gan = GanStep(networks, train, labels, space, settings, fabric, seed, guidance)
    history, second_try = _loop(work, gan, checkpoint)
    ranks.leave()
    _settle_statistics(average, generator, space, settings, fabric, seed)
    if (name := not_finite(average)) is not None:
        raise TrainingError(_failed(work, f"{name} of the averaged generator is not finite", bool(second_try)))
    return TrainedGan(GanSampler(average, settings.latent, fabric), history, second_try)


def _loop(work: Work, gan: GanStep, checkpoint: Checkpoint) -> tuple[list[dict[str, Any]], str | None]:
    """All steps, or the remaining ones of a resumed run. Returns the history, and the sentence on a second try.

    The state to go back to is kept at steps that depend on the settings alone, so that a killed and resumed training
    goes back to the same one.
    """
    settings, good = gan.settings, work.within("good").checkpoint()
    state = _states(gan)
    step, kept = checkpoint.load(*state)
    history: list[dict[str, Any]] = kept[0] if kept else []
    second_try: str | None = kept[1] if kept else None
    if second_try:
        gan.slow_down(SLOWER)
    log_every = max(1, settings.steps // LOG_POINTS)
    good_every = log_every * max(1, LOG_POINTS // GOOD_POINTS)
    with work.progress.bar("generator", settings.steps) as bar:
        bar.images = settings.batch_size
        while step < settings.steps:
            if step % good_every == 0 and not second_try:
                good.write(step, *state, history)
            values = gan.step(step)
            step += 1
            if step % log_every == 0 or step == settings.steps:
                entry = {"step": step, **{name: float(value) for name, value in values.items()}}
                fault = ranks.first_of_team(functools.partial(_checked, work, gan, entry, good, bool(second_try)))
                if fault is not None:
                    step, history = good.load(*state)
                    second_try = _back(work, fault, step)
                    gan.slow_down(SLOWER)
                    work.progress.say(second_try)
                    continue
                history.append(entry)
                bar.log(entry)
            bar.to(step)
            if checkpoint.due():
                checkpoint.save(step, *state, [history, second_try])
    return history, second_try


def _states(gan: GanStep) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    """What a checkpoint keeps: modules, and optimisers."""
    modules: dict[str, nn.Module] = {
        "generator": gan.generator,
        "discriminator": gan.discriminator,
        "average": gan.average,
    }
    if gan.settings.lecam:
        modules["lecam"] = gan.lecam
    return modules, {"generator": gan.generator_optimizer, "discriminator": gan.discriminator_optimizer}


# --- faults -----------------------------------------------------------------------------------------------------------


def _checked(work: Work, gan: GanStep, entry: dict[str, float], good: Checkpoint, again: bool) -> str | None:
    """What is wrong, where training can go back to ``good``; else TrainingError. None: nothing is wrong."""
    fault = _fault(entry) or _bad_weight(gan)
    if fault is not None and (again or not good.there):
        raise TrainingError(_failed(work, fault, again))
    return fault


def _fault(entry: dict[str, float]) -> str | None:
    """What is wrong in an entry of the history; None: nothing."""
    for name, value in entry.items():
        if not math.isfinite(value):
            return f"{name} is {value} at step {entry['step']}"
    if entry["spread"] < LEAST_SPREAD:
        return (
            f"all images are alike at step {entry['step']} (their standard deviation per pixel is "
            f"{entry['spread']:.1e})"
        )
    return None


def _bad_weight(gan: GanStep) -> str | None:
    networks = nn.ModuleDict({"generator": gan.generator, "discriminator": gan.discriminator, "average": gan.average})
    name = not_finite(networks)
    return None if name is None else f"weight {name} is not finite"


def _back(work: Work, fault: str, step: int) -> str:
    return (
        f"{work.title or 'generator'}: {fault}, so its training went back to step {step} and continued with a tenth of "
        "generator.generator_rate and generator.discriminator_rate."
    )


def _failed(work: Work, fault: str, again: bool) -> str:
    tried = ", although the learning rates were divided by ten after a first fault" if again else ""
    return (
        f"{work.title or 'generator'}: {fault}{tried}; lower generator.generator_rate and "
        "generator.discriminator_rate, raise generator.batch_size, or set runtime.precision=fp32"
    )


@torch.no_grad()
def _settle_statistics(
    average: nn.Module,
    generator: nn.Module,
    space: LabelSpace,
    settings: GanSettings,
    fabric: Fabric,
    seed: int,
) -> None:
    """Compute the batch-norm statistics of the averaged weights over STATISTICS_BATCHES batches.

    Each batch is also one power iteration of their spectral norms, which start from those of the trained generator.
    """
    for buffer, trained in zip(average.buffers(), generator.buffers(), strict=True):
        buffer.copy_(trained)
    norms = [module for module in average.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    average.train()
    for number in range(STATISTICS_BATCHES):
        host = rng.generator("cpu", seed, "gan/statistics", number)
        torch_rng = rng.generator(fabric.device, seed, "gan/statistics", number)
        z = torch.randn(settings.batch_size, settings.latent, generator=torch_rng, device=fabric.device)
        with fabric.autocast():
            average(z, space.generator_draw(settings.batch_size, host).to(fabric.device))
    average.eval()
