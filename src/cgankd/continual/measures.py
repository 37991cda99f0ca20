"""Scores of continual learning: accuracy after each task, its mean, and forgetting.

They are task-agnostic (a prediction is among all classes so far), except the task-aware accuracy.
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
    """In percent, on the images of all tasks so far. All but ``task_aware_accuracy`` are task-agnostic.

    together: over all images. per_task: over the images of each task. task_aware_accuracy: over all images, with each
    prediction among the classes of the image's own task (Masana et al., arXiv 2010.15277), so that it does not depend
    on whether the outputs of different tasks can be compared.
    """

    together: float
    per_task: list[float]
    task_aware_accuracy: float


def accuracy(network: nn.Module, images: ImageSet, task: Task, width: int, work: Work) -> Accuracy:
    """The accuracy of ``network``. images: of all tasks, with labels as in :class:`Stream`. width: classes per task."""
    outputs, task_of = inference.outputs(work, network, images.images), images.labels // width
    score = task.score(outputs, images.labels)  # [N], 0 or 100
    own = outputs.unflatten(1, (-1, width))[torch.arange(len(task_of)), task_of]  # [N, width]
    return Accuracy(
        together=float(score.mean()),
        per_task=[float(score[task_of == number].mean()) for number in range(task.num_outputs // width)],
        task_aware_accuracy=float(task.score(own, images.labels % width).mean()),
    )


def average_incremental(together: Sequence[float]) -> float:
    """The mean of the accuracies after each task, on all classes so far (Rebuffi et al., arXiv 1611.07725)."""
    return statistics.fmean(together)


def forgetting(per_task: Sequence[Sequence[float]]) -> float:
    """The best earlier accuracy on a task minus the final one, averaged over all tasks but the last, in points.

    per_task[t][j]: accuracy on task j after task t, for j <= t (Chaudhry et al., arXiv 1801.10112, section 3.1).

    >>> forgetting([[90.0], [50.0, 80.0], [60.0, 30.0, 70.0]])
    40.0
    """
    *earlier, final = per_task
    return statistics.fmean(max(row[j] for row in earlier if j < len(row)) - final[j] for j in range(len(final) - 1))
