"""How well a continual learner did: accuracy after each task, its mean, and what was forgotten.

All of it task-agnostic: a prediction is one of all classes so far, and nobody says which task an image is of.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from lightning_fabric import Fabric
from torch import nn

from cgankd import evaluate
from cgankd.data.imageset import ImageSet
from cgankd.task import Task


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """In percent, on the images of all tasks so far: of all of them together, and of each task's by itself."""

    together: float
    per_task: list[float]


def accuracy(network: nn.Module, images: ImageSet, task: Task, width: int, fabric: Fabric) -> Accuracy:
    """images: labelled by place; there are some of each of the tasks, which have ``width`` classes each."""
    right = task.score(evaluate.outputs(network, images.images, fabric), images.labels)  # [N], 0 or 100
    of = images.labels // width
    return Accuracy(float(right.mean()), [float(right[of == t].mean()) for t in range(task.num_outputs // width)])


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
    return statistics.fmean(
        max(row[j] for row in earlier if j < len(row)) - final[j] for j in range(len(final) - 1)
    )
