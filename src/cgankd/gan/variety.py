"""Whether a trained generator draws different images: how far its images of one label are from each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cgankd.core import rng
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import Sampler
from cgankd.tasks import Task

LABELS = 10  # that are looked at
IMAGES = 24  # of each, real and generated
# A label's generated images count as alike if they are nearer to each other than this share of the real images'
# distance. Measured for the GANs of the recipes digits and rotated-fashion-demo: 0.6 to 1.1 at every label.
ALIKE = 0.1


def measure_variety(sampler: Sampler, train: ImageSet, task: Task, seed: int) -> dict[str, Any]:
    """The variety of generated images at up to ``LABELS`` labels of the training images.

    The variety at a label is the median distance from an image to its nearest neighbour among ``IMAGES`` generated
    images, divided by the same of real images with this label, or with the nearest labels for a scalar. It is near 0
    for a generator that is stuck on one image, or on a few.

    Returns ``labels`` (texts), ``values`` (one for each; None where the real images are all alike) and ``alike``: the
    texts of the labels whose value is below ``ALIKE``.
    """
    targets = task.to_target(train.labels)
    chosen = _spread(targets, seed)
    texts = [task.short_text(float(label)) for label in train.labels[chosen]]
    values = []
    for target in targets[chosen]:
        rows = _nearest_labels(targets, target, task, seed)
        fakes = sampler.sample(target.expand(len(rows)), torch.arange(len(rows)), rng.key(seed, "variety"))
        values.append(_ratio(_apart(fakes), _apart(train.images[rows])))
    alike = [text for text, value in zip(texts, values, strict=True) if value is not None and value < ALIKE]
    return {"labels": texts, "values": values, "alike": alike}


def _spread(targets: Tensor, seed: int) -> Tensor:
    """Rows with different labels, evenly spread over the sorted labels, int64."""
    distinct = targets.unique()
    places = torch.linspace(0, len(distinct) - 1, min(LABELS, len(distinct))).round().long()
    order = rng.order(len(targets), seed, "variety/order")
    return torch.stack([order[(targets[order] == label).long().argmax()] for label in distinct[places]])


def _nearest_labels(targets: Tensor, target: Tensor, task: Task, seed: int) -> Tensor:
    """Up to ``IMAGES`` rows with the label, or for a scalar those with the nearest labels; at random among equals."""
    order = rng.order(len(targets), seed, "variety/order")
    if not task.continuous:
        return order[targets[order] == target][:IMAGES]
    return order[task.axis.distance(targets[order], target).sort(stable=True).indices[:IMAGES]]


def _apart(images: Tensor) -> float:
    """The median distance from an image to the nearest other one; 0 for a single image."""
    if len(images) < 2:
        return 0.0
    pixels = images.flatten(1).float()
    distances = torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    return float(distances.min(dim=1).values.median())


def _ratio(fake: float, real: float) -> float | None:
    return fake / real if real > 0 else None
