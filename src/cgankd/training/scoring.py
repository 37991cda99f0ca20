"""The metric of a network on a split, in total and per class or label bin.

Where several processes compute together, all of them compute the network's outputs.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from cgankd.core import ranks
from cgankd.core.errors import TrainingError
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.nets.attention import BLOCKS, attention, gates
from cgankd.nets.inference import Predictor, outputs, place
from cgankd.nets.taps import Taps
from cgankd.tasks import Task

NEARLY_ALL, NEAR = 0.99, 0.01  # of the images, and of a scalar's range


@dataclasses.dataclass(frozen=True)
class Scores:
    """total: the task's metric. loss: the task's calibrated loss. per_bin: the metric per class or label bin; None for
    an empty bin. same_answer: the prediction for nearly all images, as text; None where predictions differ, or
    cannot."""

    total: float
    loss: float
    per_bin: list[float | None]
    same_answer: str | None


def scored(work: Work, network: Predictor, images: ImageSet, task: Task, name: str = "scores") -> Scores:
    """The scores of a network on ``images``.

    name: as :func:`cgankd.nets.inference.outputs` takes it. Raises TrainingError for outputs that are not finite.
    """
    given = outputs(work, network, images.images, name)
    return ranks.first_of_team(lambda: _scores(work, given, images, task, name))


def _scores(work: Work, given: Tensor, images: ImageSet, task: Task, name: str) -> Scores:
    if not torch.isfinite(given).all():
        raise TrainingError(
            f"{work.title}: its outputs for the images of {name} are not finite; a lower learning_rate, or "
            "runtime.precision=fp32, may help"
        )
    scores = task.score(given, images.labels)
    means, counts = _per_bin(scores, images.labels, task)
    per_bin = [float(mean) if n else None for mean, n in zip(means, counts, strict=True)]
    loss = task.calibrated_loss(given.double(), task.to_target(images.labels))
    return Scores(float(scores.mean()), loss, per_bin, _same_answer(given, images.labels, task))


def metric(work: Work, network: Predictor, images: ImageSet, task: Task) -> float:
    """The task's metric on ``images``, whatever the outputs are."""
    given = outputs(work, network, images.images, "scores")
    return ranks.first_of_team(lambda: float(task.score(given, images.labels).mean()))


def _same_answer(given: Tensor, labels: Tensor, task: Task) -> str | None:
    """The prediction that all but 1% of the images get, up to 1% of a scalar's range; None where there is none."""
    if len(labels.unique()) < 2:
        return None
    predictions = task.predict(given)
    targets = task.to_target(predictions)
    for row in (0, len(targets) // 2):  # one of the two is hardly ever among the few exceptions
        alike = targets == targets[row]
        if task.continuous:
            alike = task.axis.distance(targets, targets[row]) <= NEAR
        if float(alike.double().mean()) >= NEARLY_ALL:
            return task.short_text(float(predictions[row]))
    return None


def attention_per_bin(work: Work, network: nn.Module, images: ImageSet, task: Task) -> dict[str, Tensor]:
    """The attention of a network with VAM (NAME+vam), per class or label bin.

    Returns ``mean`` float32 [bins, gates, K]: each block's weight, averaged over the bin's images (NaN for an empty
    bin); ``images`` int64 [bins]: the number of images; ``decided`` float32 [gates]: 1 - mean entropy / ln K, over all
    images, so 1 if one block has all the weight, and 0 if all blocks have equal weight.
    """
    place(network, work.fabric).eval()
    with Taps(network, gates(network)) as taps:

        def block_weights(batch: Tensor) -> Tensor:
            return torch.stack([attention(scores) for scores in taps(batch)[1].values()], dim=1)

        weights = outputs(work, block_weights, images.images, "attention").double()  # [N, gates, K]
    mean, counts = _per_bin(weights, images.labels, task)
    decided = 1.0 - torch.special.entr(weights).sum(2).mean(0) / math.log(BLOCKS)
    return {"mean": mean.float(), "images": counts, "decided": decided.float()}


def _per_bin(values: Tensor, labels: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Means of ``values`` [N, ..] over each of the task's bins, [bins, ..], and the bins' numbers of images, [bins]."""
    names, bins = task.bins(labels)
    sums = values.new_zeros(len(names), *values.shape[1:]).index_add_(0, bins, values)
    counts = torch.bincount(bins, minlength=len(names))
    return sums / counts.view(-1, *[1] * (values.ndim - 1)), counts
