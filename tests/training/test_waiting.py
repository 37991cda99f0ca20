"""No training step waits for the device: nothing in it reads a value of a tensor, on which a GPU's queue would empty.

Drawing a batch is not counted, because it computes on the processor; log entries wait, a few times in a training.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric

from cgankd import distill
from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.store import Work
from cgankd.data import augment
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import DistillBatch
from cgankd.nets import zoo
from cgankd.tasks import Classification, Regression, Task
from cgankd.training import loop
from waits import Waits

CLASSES, SCALAR = Classification(("a", "b", "c")), Regression(0.0, 1.0)

# On the processor by design: drawing, and selecting rows of a batch by a mask that lies there. one_hot looks at the
# classes only on a processor.
LEFT_OUT = ((Batches, "at"), (augment, "_change"), (DistillBatch, "rows"), (F, "one_hot"))


@pytest.fixture
def images() -> TrainingImages:
    draw = torch.Generator().manual_seed(0)

    def some(count: int) -> ImageSet:
        pixels = torch.randint(0, 256, (count, 1, 16, 16), generator=draw, dtype=torch.uint8)
        return ImageSet(pixels, torch.arange(count) % 3)

    return TrainingImages(some(24), some(24), real_share=0.5)


def waits(
    monkeypatch: pytest.MonkeyPatch, fabric: Fabric, task: Task, method: str, images: TrainingImages, steps: int
) -> Counter[str]:
    """How often ``steps`` steps of a training wait; with the log entry after the last one."""
    mode = Waits()
    for owner, name in LEFT_OUT:
        monkeypatch.setattr(owner, name, mode.without(getattr(owner, name)))
    monkeypatch.setattr(loop, "LOG_POINTS", 1)
    torch.manual_seed(0)
    student, teacher = (
        zoo.create(distill.student_network(method, name), 1, task.num_outputs, (16, 16)) for name in ("cnn8", "cnn24")
    )
    views = AugmentSettings(views=0, mixup=1.0) if method == "fm" else AugmentSettings(views=0)
    settings = FitSettings(steps=steps, batch_size=8, augment=views, clip_norm=1.0)
    objective = distill.create(method, task)
    with mode:
        loop.fit(Work(fabric), student, objective, images, settings, seed=0, teacher=teacher)
    monkeypatch.undo()
    return mode.seen


@pytest.mark.parametrize(
    ("task", "method"),
    [
        pytest.param(task, method, id=f"{kind}-{method}", marks=marks)
        for kind, task, marks in (("classification", CLASSES, ()), ("regression", SCALAR, pytest.mark.long))
        for method in ("supervised", *distill.serving(task))
    ],
)
def test_no_step_of_a_method_waits(
    monkeypatch: pytest.MonkeyPatch, fabric: Fabric, images: TrainingImages, task: Task, method: str
) -> None:
    few, more = (waits(monkeypatch, fabric, task, method, images, steps) for steps in (2, 5))
    assert more == few


def test_what_waits_is_counted() -> None:
    values = torch.arange(4.0)
    with Waits() as mode:
        values.sum().item()
        values[values > 1]
        values.nonzero()
        F.one_hot(values.long(), 4)
        mode.without(float)(values.sum())
    assert {name: mode.seen[name] for name in ("aten.index", "aten.nonzero")} == {"aten.index": 1, "aten.nonzero": 1}
    assert mode.seen["aten._local_scalar_dense"] >= 2
