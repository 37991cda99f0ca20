"""Training a conditional GAN: one loop for classes and scalars, because the label space draws the batches."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.settings import GanSettings, ScalarLabelSettings
from cgankd.core import rng
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import TrainingError
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import GanSampler, new_networks
from cgankd.gan.guidance import Guidance
from cgankd.gan.step import GanStep, Networks
from cgankd.labels import LabelSpace, label_embedding, label_space
from cgankd.nets import inference
from cgankd.tasks import Task

LOG_POINTS = 50
STATISTICS_BATCHES = 20  # generator batches over which its final batch-norm statistics are computed


def train_gan(
    work: Work,
    train: ImageSet,
    task: Task,
    settings: GanSettings,
    scalar: ScalarLabelSettings | None = None,
    *,
    seed: int,
    guidance: Guidance | None = None,
) -> tuple[GanSampler, list[dict[str, Any]]]:
    """Train on ``train``. Returns the moving average of the generator, and the history of losses and logits.

    guidance: the teacher in the generator's loss. Raises TrainingError where a loss is not finite or all generated
    images are alike.
    """
    checkpoint, fabric = work.checkpoint(), work.fabric
    labels = task.to_target(train.labels)
    space = label_space(task, labels, scalar)
    with work.random_state():
        torch.manual_seed(rng.key(seed, "gan/weights"))
        embedding = label_embedding(task, scalar, settings.label_dim)
        if not checkpoint.there:
            space.train_embedding(work, embedding, train, task, seed)
        generator, discriminator = new_networks(settings, embedding.cpu(), train.channels, train.size)
    inference.place(generator, fabric)
    inference.place(discriminator, fabric)
    average = copy.deepcopy(generator).requires_grad_(False)
    networks = Networks(generator, discriminator, average)
    history = _loop(work, GanStep(networks, train, labels, space, settings, fabric, seed, guidance), checkpoint)
    _settle_statistics(average, generator, space, settings, fabric, seed)
    return GanSampler(average, settings.latent, fabric), history


def _loop(work: Work, gan: GanStep, checkpoint: Checkpoint) -> list[dict[str, Any]]:
    settings = gan.settings
    modules: dict[str, nn.Module] = {
        "generator": gan.generator,
        "discriminator": gan.discriminator,
        "average": gan.average,
    }
    if settings.lecam:
        modules["lecam"] = gan.lecam
    optimizers = {"generator": gan.generator_optimizer, "discriminator": gan.discriminator_optimizer}
    start, history = checkpoint.load(modules, optimizers)
    log_every = max(1, settings.steps // LOG_POINTS)
    with work.progress.bar("generator", settings.steps) as bar:
        bar.images = settings.batch_size
        for step in range(start, settings.steps):
            values = gan.step(step)
            done = step + 1
            if done % log_every == 0 or done == settings.steps:
                entry = {"step": done, **{name: float(value) for name, value in values.items()}}
                _check(entry)
                history.append(entry)
                bar.log(entry)
            bar.to(done)
            if checkpoint.due():
                checkpoint.save(done, modules, optimizers, history)
    return history


def _check(entry: dict[str, float]) -> None:
    for name, value in entry.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"generator: {name} is {value} at step {entry['step']}; lower generator.generator_rate and "
                "generator.discriminator_rate, or set runtime.precision=fp32"
            )
    if entry["spread"] < 1e-3:
        raise TrainingError(
            f"generator: all images are alike at step {entry['step']} (their standard deviation per pixel is "
            f"{entry['spread']:.1e}); lower generator.discriminator_rate or raise generator.batch_size"
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
