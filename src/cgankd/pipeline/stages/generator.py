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
from cgankd.gan.generator import GeneratorSource, Sampler, keep_generator
from cgankd.gan.train import train_gan
from cgankd.labels import label_space, ratio_embedding
from cgankd.metrics import cost
from cgankd.nets.build import Architecture, NetworkSource
from cgankd.pipeline.inputs import Extractor
from cgankd.synthesis import checks
from cgankd.synthesis.autoencoder import keep_autoencoder, new_autoencoder, train_autoencoder
from cgankd.synthesis.density_ratio import Pairs, RatioNetwork, keep_ratio, real_and_fakes, train_ratio
from cgankd.tasks import Task


@stage()
def train_generator(
    work: Work,
    *,
    train: ImageSet,
    task: Task,
    gan: GanSettings,
    scalar: ScalarLabelSettings | None,
    teacher: NetworkSource | None,
    seed: int,
) -> dict[str, Any]:
    """Train the conditional GAN. scalar: settings for scalar labels; None for classes. teacher: for its guidance."""
    guide = None if teacher is None else teacher.open(work.fabric)
    assert guide is None or isinstance(guide, nn.Module)  # preflight refuses black boxes here
    sampler, history = train_gan(work, train, task, gan, scalar, seed=seed, teacher=guide)
    entries = keep_generator(work, sampler, gan, scalar, task, train)
    _preview_generator(work, sampler, train, task, seed)
    return {**entries, "parameters": cost.parameters(sampler.network), "history": history}


@stage()
def show_generator(work: Work, *, generator: GeneratorSource, train: ImageSet, task: Task, seed: int) -> dict[str, Any]:
    """A few images of a generator other than the GAN, for the report."""
    _preview_generator(work, generator.open(work.fabric), train, task, seed)
    return {"parameters": None, "history": []}


def _preview_generator(work: Work, sampler: Sampler, train: ImageSet, task: Task, seed: int) -> None:
    labels = preview.examples(train, task)["labels"]
    images = sampler.sample(task.to_target(labels), torch.arange(len(labels)), seed)
    work.save("preview", {"images": images, "labels": labels, "bin": task.bins(labels)[1]})


@stage(version=3)
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
    """Train the conditional density ratio. val: one half of it chooses the weights, the other checks them."""
    space, sampler = label_space(task, task.to_target(train.labels)), generator.open(work.fabric)
    with extractor.open(work.fabric) as opened:

        def pairs(images: ImageSet, stream: str) -> Pairs:
            key = rng.key(seed, stream)
            return real_and_fakes(work.within(stream), images, task, space, sampler, opened, settings, key)

        known = pairs(train, "train")
        held_out = None if val is None else pairs(val, "held out")
    embedding = ratio_embedding(task, RatioNetwork.LABEL_DIM)
    chosen_by = checked_on = None
    if held_out is not None:
        halves = [held_out.take(rows) for rows in checks.halves(len(held_out.real), seed)]
        chosen_by, checked_on = (half.take(half.usable) for half in halves)
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
    entries = keep_autoencoder(work, autoencoder, network, train, task)
    return {**entries, "history": history, "parameters": cost.parameters(autoencoder)}
