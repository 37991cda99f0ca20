"""How good the outputs of a network are on a split, over all and per class or label bin."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.nets.attention import BLOCKS, attention, gates
from cgankd.nets.inference import Predictor, outputs, place
from cgankd.nets.taps import Taps
from cgankd.tasks import Task


def metric(
    work: Work, network: Predictor, images: ImageSet, task: Task, name: str = "scores"
) -> tuple[float, list[float | None]]:
    """The task's metric on ``images``, over all and per class or label bin (None where a bin is empty).

    name: as :func:`cgankd.nets.inference.outputs` takes it.
    """
    scores = task.score(outputs(work, network, images.images, name), images.labels)
    means, counts = _per_bin(scores, images.labels, task)
    return float(scores.mean()), [float(mean) if n else None for mean, n in zip(means, counts, strict=True)]


def attention_per_bin(work: Work, network: nn.Module, images: ImageSet, task: Task) -> dict[str, Tensor]:
    """What a network with attention (NAME+vam) attends to, of each class or label bin.

    Returns ``mean`` float32 [bins, gates, K]: each block's share, averaged over the bin's images (NaN: there are
    none); ``images`` int64 [bins]: how many these are; ``decided`` float32 [gates]: 1 less the mean over all images
    of their attention's entropy, as a share of the largest, ln K.
    """
    place(network, work.fabric).eval()
    with Taps(network, gates(network)) as taps:

        def look(shown: Tensor) -> Tensor:
            return torch.stack([attention(scores) for scores in taps(shown)[1].values()], dim=1)

        seen = outputs(work, look, images.images, "attention").double()  # [N, gates, K]
    mean, counts = _per_bin(seen, images.labels, task)
    decided = 1.0 - torch.special.entr(seen).sum(2).mean(0) / math.log(BLOCKS)
    return {"mean": mean.float(), "images": counts, "decided": decided.float()}


def _per_bin(values: Tensor, labels: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Means of ``values`` [N, ..] over each of the task's bins, [bins, ..], and how many each has, [bins]."""
    names, place = task.bins(labels)
    sums = values.new_zeros(len(names), *values.shape[1:]).index_add_(0, place, values)
    counts = torch.bincount(place, minlength=len(names))
    return sums / counts.view(-1, *[1] * (values.ndim - 1)), counts
