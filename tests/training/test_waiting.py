"""No training step waits for the device: nothing in it reads a value of a tensor, on which a GPU's queue would empty.

The first step may wait, or the first ones where each fills a cache, and so may entries of the history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd import distill
from cgankd.config.settings import AugmentSettings, FitSettings, StudentSettings
from cgankd.core import runtime
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import Objective, Preparation
from cgankd.distill.networks import NetworkFactory
from cgankd.nets import zoo
from cgankd.tasks import Classification, Regression, Task
from cgankd.training import loop
from waits import DEVICE, Waits, Watched, accelerated

TASKS = {"classes": Classification(("a", "b", "c")), "scalar": Regression(0.0, 1.0)}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "stored outputs": ("kd", {"views": 1}),
    "real and fake apart": ("kd@real+fitnet@fake", {}),
    "mixed images": ("fm", {"mixup": 1.0, "cutmix": 1.0}),
    "mixed images that recur": ("fm", {"mixup": 1.0, "cutmix": 1.0, "mixed_views": 1, "first": 3}),
    "strong views": ("kd", {"randaugment": {}, "flip": True}),
    "attacked images": ("supervised", {"adversarial": {"steps": 2}}),
}


def some(task: Task, count: int) -> ImageSet:
    draw = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 1, 16, 16), generator=draw, dtype=torch.uint8)
    return ImageSet(pixels, torch.rand(count, generator=draw) if task.continuous else torch.arange(count) % 3)


def waits(monkeypatch: pytest.MonkeyPatch, task: Task, method: str, first: int = 1, **changes: Any) -> Counter[str]:
    """What the steps of a training wait for, after ``first`` ones."""
    monkeypatch.setattr(loop, "LOG_POINTS", 1)
    monkeypatch.setattr(loop, "in_order", lambda batches, first, end: (batches.at(step) for step in range(first, end)))
    # the steps of what methods train first, and the names of networks that it would take long to choose among
    monkeypatch.setattr(Preparation, "share", lambda preparation, first: preparation.steps)
    monkeypatch.setattr(NetworkFactory, "between", lambda *names: "cnn8")
    monkeypatch.setattr(NetworkFactory, "wider", lambda *names: "cnn16")
    torch.manual_seed(0)
    student, teacher = (
        zoo.create(distill.student_network(method, name), 1, task.num_outputs, (16, 16)) for name in ("cnn8", "cnn16")
    )
    attack = changes.pop("adversarial", None)
    views = AugmentSettings(**{"views": 0, **({"mixup": 1.0} if method == "fm" else {}), **changes})
    settings = FitSettings(steps=first + 2, batch_size=6, augment=views, clip_norm=1.0, adversarial=attack)
    images = TrainingImages(some(task, 9), some(task, 10), real_share=0.5)
    few = StudentSettings(method_settings={"ofd": {"batches": 2}} if method == "ofd" else {})
    objective = distill.create(method, task, few)
    with Waits() as mode:
        progress = Watched(mode, "ofd: margins")
        loop.fit(Work(accelerated(), progress), student, objective, images, settings, seed=0, teacher=teacher)
    assert all(len(seen) == first + 2 for seen in progress.loops)
    assert mode.seen  # the history's numbers were read
    return progress.after(first)


@pytest.mark.parametrize(
    ("task", "method"),
    [
        pytest.param(
            task, method, id=f"{name}-{method}", marks=[pytest.mark.long] * (name == "scalar" and method in both)
        )
        for both in [("supervised", *distill.serving(TASKS["classes"]))]
        for name, task in TASKS.items()
        for method in ("supervised", *distill.serving(task))
    ],
)
def test_no_step_of_a_method_waits(monkeypatch: pytest.MonkeyPatch, task: Task, method: str) -> None:
    assert waits(monkeypatch, task, method) == Counter()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_step_of_a_variant_waits(monkeypatch: pytest.MonkeyPatch, task: Task, variant: str) -> None:
    method, changes = VARIANTS[variant]
    assert waits(monkeypatch, task, method, **changes) == Counter()


def test_a_number_that_is_read_in_a_step_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Objective.loss

    def reading(self: Objective, batch: distill.DistillBatch) -> dict[str, Tensor]:
        terms = plain(self, batch)
        terms["label"].item()
        return terms

    monkeypatch.setattr(Objective, "loss", reading)
    found = waits(monkeypatch, TASKS["classes"], "kd")
    assert sum(found.values()) == 1
    assert all(name.startswith("aten._local_scalar_dense") for name in found)


READS: dict[str, Callable[[Tensor, Tensor], object]] = {  # of a tensor on the processor, and a copy on the device
    "item": lambda host, there: there.sum().item(),
    "float": lambda host, there: float(there[0] * 2),
    "bool": lambda host, there: bool((there > 1).any()),
    "tolist": lambda host, there: there.tolist(),
    "cpu": lambda host, there: there.cpu(),
    "to the processor": lambda host, there: there.to("cpu"),
    "copy_": lambda host, there: torch.empty(4).copy_(there),
    "nonzero": lambda host, there: there.nonzero(),
    "unique": lambda host, there: there.unique(),
    "masked_select": lambda host, there: there.masked_select(there > 1),
    "equal": lambda host, there: torch.equal(there, there),
    "mask": lambda host, there: there[there > 1],
    "assigned by mask": lambda host, there: there.index_put_([there > 1], there[0]),
    "mask of the processor": lambda host, there: there[host > 1],
    "rows of the processor": lambda host, there: there[host.long()],
    "to the device": lambda host, there: host.to(there.device),
    "as another": lambda host, there: host.to(there),
    "new tensor": lambda host, there: torch.tensor([1.0], device=there.device),
    "one_hot": lambda host, there: F.one_hot(there.long()),
}
FREE: dict[str, Callable[[Tensor, Tensor], object]] = {
    "on the processor": lambda host, there: (host.tolist(), host[host > 1], host.nonzero(), float(host.sum())),
    "computing": lambda host, there: torch.where(there > 1, there, 0.0).sum() * host.sum().item(),
    "rows of the device": lambda host, there: there[torch.arange(2, device=there.device)],
    "pinned": lambda host, there: runtime.to_device(host, there.device),
    "one_hot": lambda host, there: F.one_hot(there.long(), 4),
    "layout": lambda host, there: there.to(torch.float64).to(there.device),
}


@pytest.mark.parametrize("name", READS)
def test_what_waits_is_counted(name: str) -> None:
    assert counted(READS[name]) == 1


@pytest.mark.parametrize("name", FREE)
def test_what_does_not_wait_is_not_counted(name: str) -> None:
    assert counted(FREE[name]) == 0


def counted(use: Callable[[Tensor, Tensor], object]) -> int:
    with Waits() as mode:
        host = torch.arange(4.0)
        there = runtime.to_device(host, DEVICE)
        use(host, there)
    return mode.seen.total()
