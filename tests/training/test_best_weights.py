"""The weights with the best validation score: which ones they are, and that a killed training keeps the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd import distill
from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.nets import zoo
from cgankd.tasks import Classification, Regression, Task
from cgankd.training import scoring
from cgankd.training.best import BestWeights, Kept
from cgankd.training.loop import fit
from works import stopped_at_every_save

CLASSES, SCALAR = Classification(("a", "b", "c")), Regression(0.0, 1.0)
Noise = Callable[..., ImageSet]


class Counter(nn.Module):
    """A network whose one weight tells when it was copied."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    ("task", "scores", "best"),
    [
        (CLASSES, [10.0, 30.0, 20.0], 2),
        (CLASSES, [30.0, 30.0, 20.0], 2),  # of equal ones the latest
        (SCALAR, [0.3, 0.1, 0.2], 2),  # an error: lower is better
        (SCALAR, [0.3, 0.2, 0.2], 3),
        (CLASSES, [math.nan, 10.0, math.nan], 2),
    ],
)
def test_the_best_score_is_kept_and_of_equal_ones_the_latest(task: Task, scores: list[float], best: int) -> None:
    network, kept = Counter(), BestWeights(task)
    for step, score in enumerate(scores, start=1):
        network.steps.data += 1
        kept.see(network, step, score)
    assert (kept.step, kept.tensors["steps"].item()) == (best, best)


def trained(work: Work, noise: Noise, task: Task, steps: int = 30) -> tuple[nn.Module, list[dict[str, Any]], Any]:
    torch.manual_seed(0)
    student, best = zoo.create("cnn8", 1, task.num_outputs, (16, 16)), BestWeights(task)
    images = TrainingImages(noise(16, scalar=task.continuous), validation=noise(30, scalar=task.continuous, seed=7))
    settings = FitSettings(
        steps=steps, batch_size=8, learning_rate=0.2, schedule="constant", augment=AugmentSettings(views=2)
    )
    method = distill.create("supervised", task)
    history = fit(work, student, method, images, settings, seed=0, kept=Kept(best=best))
    return student, history, best


@pytest.mark.parametrize("task", [CLASSES, SCALAR])
def test_the_kept_weights_have_the_best_score_of_the_history(noise: Noise, fabric: Fabric, task: Task) -> None:
    student, history, best = trained(Work(fabric), noise, task)
    scores = [entry["val"] for entry in history]
    wanted = max(scores) if task.higher_is_better else min(scores)
    assert wanted != scores[-1]  # so that the last weights are others
    assert best.score == wanted
    assert [entry["val"] for entry in history if entry["step"] == best.step] == [wanted]
    student.load_state_dict(best.tensors)
    val = noise(30, scalar=task.continuous, seed=7)
    assert scoring.metric(Work(fabric), student, val, task) == wanted


@pytest.mark.parametrize("task", [CLASSES, SCALAR])
def test_a_training_stopped_at_every_step_keeps_the_same_weights(
    noise: Noise, fabric: Fabric, tmp_path: Path, task: Task
) -> None:
    steps = 9
    student, history, best = trained(Work(fabric), noise, task, steps)
    assert best.step < steps
    (other, resumed, again), calls = stopped_at_every_save(
        fabric, tmp_path, lambda work: trained(work, noise, task, steps)
    )
    assert calls >= steps
    assert (resumed, again.step, again.score) == (history, best.step, best.score)
    for name, tensor in best.tensors.items():
        assert torch.equal(again.tensors[name], tensor), name
    for name, tensor in student.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_keeping_the_best_weights_changes_nothing_in_the_last_ones(noise: Noise, fabric: Fabric) -> None:
    watched = trained(Work(fabric), noise, CLASSES)[0].state_dict()
    torch.manual_seed(0)
    student = zoo.create("cnn8", 1, 3, (16, 16))
    settings = FitSettings(
        steps=30, batch_size=8, learning_rate=0.2, schedule="constant", augment=AugmentSettings(views=2)
    )
    fit(Work(fabric), student, distill.create("supervised", CLASSES), TrainingImages(noise(16)), settings, seed=0)
    for name, tensor in student.state_dict().items():
        assert torch.equal(watched[name], tensor), name
