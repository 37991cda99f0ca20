"""Density ratios that one process and several must train alike.

A case is one of :data:`CASES`, and may have an end after a slash (tests/ends.py): it comes in the third
batch of fakes at the labels of the training images.
"""

from __future__ import annotations

from typing import Any

import torch
from shared_synthesis import SEED, sources
from test_synthesize import CLASSES, DEGREES, pixels

from cgankd.config.settings import RatioFitSettings
from cgankd.core import rng
from cgankd.core.store import Artifact, Store
from cgankd.data.imageset import ImageSet
from cgankd.pipeline import stages
from cgankd.tasks import Task

SHORT: dict[str, Any] = {"steps": 4, "batch_size": 16, "hidden": (32, 32), "fakes_per_image": 6}
# name -> task, number of training and validation images, settings. Blocks of 250 and 10 rows; fakes that are left out,
# and a block of one row; a teacher that only the first asks; networks, not pixels
CASES: dict[str, tuple[Task, int, int, dict[str, Any]]] = {
    "classes": (CLASSES, 260, 40, {}),
    "scalars": (DEGREES, 251, 40, {"vicinity_gaps": 20.0}),
    "service": (CLASSES, 60, 0, {}),
    "networks": (CLASSES, 90, 30, {}),
}


def trained(store: Store, case: str) -> Artifact:
    """The density ratio of a case, with a checkpoint after each block."""
    task, train, val, changes = CASES[case.partition("/")[0]]
    stream = rng.key(rng.key(SEED, "train"), "ratio/fakes")
    generator, extractor, _ = sources(case, task, stream, store.fabric)
    return store.call(
        stages.train_density_ratio,
        train=real(task, train, 1),
        val=real(task, val, 2) if val else None,
        task=task,
        generator=generator,
        extractor=extractor,
        settings=RatioFitSettings(**SHORT, **changes),
        seed=SEED,
    )


def real(task: Task, count: int, seed: int) -> ImageSet:
    """Images of the generator with other random numbers."""
    labels = torch.linspace(0.0, 90.0, count) if task.continuous else torch.arange(count) % 3
    return ImageSet(pixels(task.to_target(labels), torch.arange(count), seed), labels)
