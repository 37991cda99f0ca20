"""Accuracy, average incremental accuracy and forgetting against plain loops over predictions."""

from __future__ import annotations

import random

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.continual.losses import Increment
from cgankd.continual.measures import accuracy, average_incremental, forgetting
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet


class Spoken(nn.Module):
    """Answers each image with the class that its first pixel names."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot((images[:, 0, 0, 0] * 255).round().long(), 6).float()


def test_accuracy_counts_right_answers_together_and_per_task(fabric: Fabric) -> None:
    rng = random.Random(0)
    labels = [0, 1, 2, 3, 4, 5] + [rng.randrange(6) for _ in range(40)]
    said = [label if rng.random() < 0.6 else rng.randrange(6) for label in labels]
    images = torch.tensor(said, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16)
    found = accuracy(Spoken(), ImageSet(images, torch.tensor(labels)), Increment(tuple("abcdef"), 4), 2, Work(fabric))
    right = [a == b for a, b in zip(labels, said, strict=True)]
    assert found.together == pytest.approx(100 * sum(right) / len(right), rel=1e-12)
    for task in range(3):
        own = [ok for ok, label in zip(right, labels, strict=True) if label in (2 * task, 2 * task + 1)]
        assert found.per_task[task] == pytest.approx(100 * sum(own) / len(own), rel=1e-12)
    assert len(found.per_task) == 3


def test_task_aware_predictions_are_among_the_classes_of_the_own_task(fabric: Fabric) -> None:
    logits = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 6
    images = torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16)

    class Known(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return logits[(images[:, 0, 0, 0] * 255).round().long()]

    found = accuracy(Known(), ImageSet(images, labels), Increment(tuple("abcdef"), 4), 2, Work(fabric))
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        other = label + 1 if label % 2 == 0 else label - 1
        right += row[label] > row[other]
    assert found.task_aware_accuracy == pytest.approx(100 * right / 30, rel=1e-5)
    assert found.together < found.task_aware_accuracy < 100


@pytest.mark.parametrize("tasks", [2, 3, 7])
def test_forgetting_is_the_definition_on_the_whole_matrix(tasks: int) -> None:
    rng = random.Random(tasks)
    matrix = [[rng.uniform(0, 100) for _ in range(row + 1)] for row in range(tasks)]
    # Chaudhry et al.: f_j = max over l < T of a_lj - a_Tj, where a class that was not learnt yet counts 0.
    whole = [row + [0.0] * (tasks - len(row)) for row in matrix]
    total = 0.0
    for j in range(tasks - 1):
        best = 0.0
        for earlier in range(tasks - 1):
            best = max(best, whole[earlier][j])
        total += best - whole[-1][j]
    assert forgetting(matrix) == pytest.approx(total / (tasks - 1), rel=1e-12)


def test_forgetting_is_negative_where_later_tasks_help() -> None:
    assert forgetting([[50.0], [60.0, 80.0], [70.0, 90.0, 10.0]]) == pytest.approx(-10.0)


def test_average_incremental_is_the_mean_over_tasks() -> None:
    assert average_incremental([100.0, 60.0, 20.0]) == 60.0
