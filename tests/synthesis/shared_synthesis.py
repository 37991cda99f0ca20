"""Synthesis that one process and several must end alike.

A case is one of :data:`CASES`, and may have an end after a slash (tests/ends.py): it comes in the third batch of the
synthesis.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from test_synthesize import CLASSES, DEGREES, Opened, Ratio, Teacher, pixels, plan_of
from torch import Tensor

from cgankd.config.settings import GanSettings, SynthesisSettings
from cgankd.core import ranks, rng
from cgankd.core.store import Artifact, Store
from cgankd.gan.adapters import SEEDS, CallableSampler
from cgankd.gan.generator import GanSampler, Sampler, new_networks
from cgankd.labels import label_embedding
from cgankd.nets import zoo
from cgankd.pipeline.inputs import Extractor, ProposalSource
from cgankd.pipeline.processing import process
from cgankd.tasks import Task
from cgankd.teachers.black_box import FunctionTeacher
from ends import ENDS

SEED = 3
RATIOS = {"subsampling": {"burn_in": 15}, "filter": {"calibration": 40}}
# name -> task, number of images, settings. M rises with the draws; another rule for scalars; fewer labels than
# processes; batches with fewer images than processes; a teacher that only the first asks; networks, not pixels
CASES: dict[str, tuple[Task, int, dict[str, Any]]] = {
    "classes": (CLASSES, 31, {**RATIOS, "batch_size": 7, "replace": "soft"}),
    "scalars": (DEGREES, 25, {**RATIOS, "batch_size": 16, "subsampling": {"kind": "quantile", "burn_in": 15}}),
    "one-label": (CLASSES, 8, {**RATIOS, "batch_size": 5}),
    "single": (CLASSES, 4, {"subsampling": "none", "filter": False, "batch_size": 1}),
    "service": (CLASSES, 9, {"subsampling": "none", "filter": {"calibration": 10}, "batch_size": 6}),
    "networks": (CLASSES, 20, {"subsampling": "none", "filter": False, "batch_size": 10}),
}


def drawn(store: Store, case: str) -> Artifact:
    """The images of a case, with a checkpoint after each batch."""
    name = case.partition("/")[0]
    task, images, changes = CASES[name]
    settings = SynthesisSettings(images=images, max_draws=50, **changes)
    torch.manual_seed(0)  # for the labels of scalars
    plan = plan_of(task, images, filter=settings.filter)
    if name == "one-label":
        plan = dataclasses.replace(plan, **{key: value[1:2] for key, value in vars(plan).items()})
        plan = dataclasses.replace(plan, pool=torch.zeros(1).long(), group=torch.zeros(1).long(), quota=plan.quota * 3)
    generator, extractor, features = sources(case, task, rng.key(SEED, "proposal"), store.fabric)
    ratio = None if settings.subsampling.kind == "none" else Opened("ratio", Ratio())
    source = ProposalSource(generator, extractor, ratio, task, SEED, settings.batch_size, 50)
    return process(
        store, source, plan, settings, settings.subsampling, features=features,
        keep_probabilities=settings.replace == "soft",
    )  # fmt: skip


def sources(case: str, task: Task, stream: int, fabric: Fabric) -> tuple[Sampler, Extractor, Extractor]:
    """A case's generator, which comes to the case's end in ``stream``; and what sees outputs, and features alone."""
    name, _, end = case.partition("/")
    if name == "networks":
        generator, teacher = networks(fabric)
    else:
        generator, teacher = pixels_until(ENDS[end], stream), Opened("teacher", Teacher(task.num_outputs))
    if name == "service":
        service = FunctionTeacher(asked_by_first, task, "shared_synthesis:asked_by_first")
        return generator, Extractor(service, teacher), Extractor(teacher)
    return generator, Extractor(teacher), Extractor(teacher)


def asked_by_first(images: Tensor) -> Tensor:
    """A teacher that may charge for each answer."""
    assert ranks.is_first()
    return Teacher(3)(images)


def networks(fabric: Fabric) -> tuple[Sampler, Opened]:
    """An untrained GAN and an untrained teacher."""
    torch.manual_seed(1)
    teacher = Opened("teacher", zoo.create("cnn8", 1, 3, (16, 16)))
    settings = GanSettings(steps=1, channels=8, latent=8, label_dim=8)
    torch.manual_seed(2)
    network, _ = new_networks(settings, label_embedding(CLASSES, None, 8), 1, (16, 16))
    gan = GanSampler(network, 8, fabric)
    gan.content_key = "untrained"
    return gan, teacher


def pixels_until(end: Callable[[], None], stream: int) -> Sampler:
    """A generator that calls ``end`` in its third batch of ``stream``."""
    batches = itertools.count(1)

    def sample(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        if seed == stream % SEEDS and next(batches) == 3:
            end()
        return pixels(targets, indices, seed)

    return CallableSampler(sample, content_key="pixels")
