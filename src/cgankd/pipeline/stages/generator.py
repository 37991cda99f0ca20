"""Stages of the generator and of the density ratio between real and generated images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cgankd.config.settings import (
    AugmentSettings,
    GanSettings,
    RatioFitSettings,
    ScalarLabelSettings,
)
from cgankd.core import rng
from cgankd.core.store import Work, stage
from cgankd.data import preview
from cgankd.data.imageset import ImageSet
from cgankd.data.resizing import resized_set
from cgankd.gan.generator import GeneratorSource, Sampler, keep_generator
from cgankd.gan.guidance import Guidance
from cgankd.gan.train import train_gan
from cgankd.gan.variety import measure_variety
from cgankd.labels import label_space, ratio_embedding
from cgankd.metrics import cost
from cgankd.nets.build import Architecture, NetworkSource, keep_network
from cgankd.pipeline.inputs import Extractor
from cgankd.synthesis import checks
from cgankd.synthesis.autoencoder import new_autoencoder, train_autoencoder
from cgankd.synthesis.density_ratio import RatioNetwork, Reader, keep_ratio, real_and_fakes, train_ratio
from cgankd.tasks import Task

LABELS, IMAGES_PER_LABEL = 17, 3  # of draw_along_labels: every sixteenth of the range


# version 1 penalised the conditional logits during a transition; 2 had no vicinity weights in the relativistic G loss
@stage(version=3, together=True)
def train_generator(
    work: Work,
    *,
    train: ImageSet,
    size: tuple[int, int],
    task: Task,
    gan: GanSettings,
    scalar: ScalarLabelSettings | None,
    teacher: NetworkSource | None,
    seed: int,
) -> dict[str, Any]:
    """Train the conditional GAN.

    size: (H, W) of what it draws; where the images of ``train`` are larger, they are reduced for it, and what it draws
    is enlarged. scalar: settings for scalar labels; None for classes. teacher: for ``gan.guidance``; else None.
    """
    guidance = None
    if gan.guidance is not None and teacher is not None:
        network = teacher.open(work.fabric)
        assert isinstance(network, nn.Module)  # black boxes are refused before
        guidance = Guidance(network, task, gan.guidance, work.fabric, train)
    drawn = resized_set(train, size)
    sampler, history, second_try = train_gan(work, drawn, task, gan, scalar, seed=seed, guidance=guidance)
    sampler.size = train.size
    entries = keep_generator(work, sampler, gan, scalar, task, drawn)
    _preview_generator(work, sampler, train, task, seed)
    return {
        **entries,
        "parameters": cost.parameters(sampler.network),
        "history": history,
        "second_try": second_try,
        "variety": measure_variety(sampler, train, task, seed),
    }


@stage(version=2)  # version 1 showed ready images of other scalar labels
def show_generator(work: Work, *, generator: GeneratorSource, train: ImageSet, task: Task, seed: int) -> dict[str, Any]:
    """A few images of a generator other than the GAN, for the report, and its variety unless its images are stored."""
    sampler = generator.open(work.fabric)
    _preview_generator(work, sampler, train, task, seed)
    variety = measure_variety(sampler, train, task, seed) if sampler.held is None else None
    return {"parameters": None, "history": [], "variety": variety}


@stage()
def draw_along_labels(work: Work, *, generator: GeneratorSource, task: Task, seed: int) -> dict[str, Any]:
    """A few images at each of 17 labels, evenly spread over the range of a scalar, for the report.

    along.safetensors: ``labels`` [17] in the label's unit, ``images`` uint8 [17, 3, C, H, W].
    """
    targets = task.axis.grid(LABELS)
    sampler = generator.open(work.fabric)
    images = torch.stack([sampler.along(targets, index, seed) for index in range(IMAGES_PER_LABEL)], dim=1)
    work.save("along", {"labels": task.from_target(targets), "images": images})
    return {"one_latent": sampler.one_latent}


def _preview_generator(work: Work, sampler: Sampler, train: ImageSet, task: Task, seed: int) -> None:
    labels = preview.examples(train, task)["labels"]
    images = sampler.one_each(task.to_target(labels), torch.arange(len(labels)), seed)
    bins = task.bins(labels)[1]
    work.save("preview", {"images": images, "labels": labels, "bin": bins})
    work.progress.picture("generator/samples", preview.grid(images, bins))


@stage(version=4, together=True)  # version 3 weighted held-out labels by how many of their fakes are valid
def train_density_ratio(
    work: Work,
    *,
    train: ImageSet,
    val: ImageSet | None,
    task: Task,
    generator: GeneratorSource,
    extractor: Extractor,
    settings: RatioFitSettings,
    seed: int,
) -> dict[str, Any]:
    """Train the conditional density ratio. val: one half of it chooses the weights, the other checks them.

    Of several processes, only the first enters ``reader``; until it leaves, the others read images for it there. Then
    it trains alone.
    """
    images = {"train": train} if val is None else {"train": train, "held out": val}
    with extractor.open(work.fabric) as opened, Reader(generator.open(work.fabric), opened, images).shared() as reader:
        space = label_space(task, task.to_target(train.labels))
        pairs = {
            name: real_and_fakes(work.within(name), reader, name, task, space, settings, rng.key(seed, name))
            for name in images
        }
    known, held_out = pairs["train"], pairs.get("held out")
    embedding = ratio_embedding(task, RatioNetwork.LABEL_DIM)
    chosen_by = checked_on = None
    if held_out is not None:
        halves = [held_out.take(rows) for rows in checks.halves(len(held_out.real), seed)]
        # A half is left out where it has no image with a fake: of one validation image, the first half is empty.
        chosen_by, checked_on = (half.take(half.usable) if len(half.usable) else None for half in halves)
    network, history = train_ratio(work, known, embedding, settings, seed=seed, held_out=chosen_by)
    summary = {**keep_ratio(work, network, settings, task), "history": history, "left_out": known.left_out}
    if checked_on is not None:
        pools = space.pools(checked_on.targets)
        summary |= checks.check(*network.values(checked_on), checked_on.valid, pools)
    return summary


@stage()
def train_encoder(
    work: Work,
    *,
    network: Architecture,
    steps: int,
    batch_size: int,
    augment: AugmentSettings,
    train: ImageSet,
    task: Task,
    seed: int,
) -> dict[str, Any]:
    """Train the sparse auto-encoder, whose code may be the features of the density ratio."""
    autoencoder = new_autoencoder(network, train, task, seed)
    history = train_autoencoder(work, autoencoder, task, train, steps, batch_size, augment, seed=seed)
    entries = keep_network(work, autoencoder, network, train, task.num_outputs)
    return {**entries, "history": history, "parameters": cost.parameters(autoencoder)}
