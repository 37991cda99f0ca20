"""How well a continual learner did: accuracy after each task, its mean, and what was forgotten.

Task-agnostic, but for what is called told: a prediction is one of all classes so far, and nobody says which task an
image is of.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import torch
from torch import nn

from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.nets import inference
from cgankd.tasks import Task


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """In percent, on the images of all tasks so far.

    told: where each image is answered among its own task's classes; it shows what a network still knows where
    ``together`` also asks whether the outputs of different tasks can be compared.
    """

    together: float
    per_task: list[float]
    told: float


def accuracy(network: nn.Module, images: ImageSet, task: Task, width: int, work: Work) -> Accuracy:
    """images: labelled by place; there are some of each of the tasks, which have ``width`` classes each."""
    outputs, of = inference.outputs(work, network, images.images), images.labels // width
    right = task.score(outputs, images.labels)  # [N], 0 or 100
    own = outputs.unflatten(1, (-1, width))[torch.arange(len(of)), of]  # [N, width]
    return Accuracy(
        together=float(right.mean()),
        per_task=[float(right[of == t].mean()) for t in range(task.num_outputs // width)],
        told=float(task.score(own, images.labels % width).mean()),
    )


def average_incremental(together: Sequence[float]) -> float:
    """Mean over the tasks of the accuracy after each, on all classes so far (Rebuffi et al., arXiv 1611.07725)."""
    return statistics.fmean(together)


def forgetting(per_task: Sequence[Sequence[float]]) -> float:
    """Mean over all tasks but the last of their best earlier accuracy minus the final one, in points.

    per_task[t][j]: accuracy on task j after task t, for j <= t (Chaudhry et al., arXiv 1801.10112, section 3.1).

    >>> forgetting([[90.0], [50.0, 80.0], [60.0, 30.0, 70.0]])
    40.0
    """
    *earlier, final = per_task
    return statistics.fmean(max(row[j] for row in earlier if j < len(row)) - final[j] for j in range(len(final) - 1))
