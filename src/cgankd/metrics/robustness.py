"""Robustness: what is left of a network's score where test images are changed to mislead it."""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.config.settings import AttackSettings, RobustnessSettings
from cgankd.core import rng
from cgankd.core.blockwise import blockwise
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.nets import inference
from cgankd.tasks import Task
from cgankd.training.adversarial import pgd

FEWEST_CLASSES = 4  # of which AutoAttack's targeted loss takes the third and fourth largest logits
MOST_TARGETS = 9  # classes that AutoAttack's standard version aims at
BATCH = 250


def check(settings: RobustnessSettings, task: Task) -> None:
    """UserError where an attack of the settings can't be made: it must not show after hours of training."""
    if "autoattack" not in settings.attacks:
        return
    if task.num_outputs < FEWEST_CLASSES:
        found = f"{task.num_outputs} classes" if task.num_outputs > 1 else f"one number ({task.name})"
        raise UserError(
            f"metrics.robustness.attacks holds autoattack, whose losses need {FEWEST_CLASSES} classes or more, but "
            f"the network's output is {found}; allowed: pgd"
        )
    library()


def library() -> ModuleType:
    """AutoAttack by its authors (arXiv 2003.01690); UserError where it is not installed."""
    try:
        import pyautoattack
    except ImportError as error:
        raise UserError(
            f"metrics.robustness.attacks holds autoattack, which needs pyautoattack ({error}); "
            "pip install 'cgankd[robust]'"
        ) from error
    found: ModuleType = pyautoattack
    return found


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack, with the numbers that it reads and no others.

    eps: at most, in any pixel. images: how many test images. pgd: of PGD; None: AutoAttack, by its ``version``.
    """

    name: str
    eps: float
    images: int
    pgd: AttackSettings | None = None
    version: str = ""

    @classmethod
    def of(cls, settings: RobustnessSettings, name: str) -> Attack:
        """``name``: one of ``settings.attacks``."""
        if name == "pgd":
            pgd = AttackSettings(eps=settings.eps, steps=settings.steps, step_size=settings.step_size)
            return cls(name, settings.eps, settings.images, pgd)
        version = importlib.metadata.version(library().__name__)
        return cls(name, settings.eps, settings.images, version=version)


def measure(
    work: Work,
    network: nn.Module,
    test: ImageSet,
    task: Task,
    attack: Attack,
    *,
    seed: int,
) -> dict[str, Any]:
    """The task's metric on ``attack.images`` random images of ``test``, as they are and under one attack.

    The worse of both scores of an image counts as its score under attack. All is computed at full precision, because
    a rounded gradient would make a network look hard to attack. Random numbers, and which images, depend on ``seed``
    alone, so that networks are compared on the same images.
    """
    frozen = inference.place(copy.deepcopy(network), work.fabric).eval().requires_grad_(False)
    order = rng.bits(seed, "robustness/images", torch.arange(len(test))).argsort()
    chosen = test.take(order[: attack.images])
    worse = torch.minimum if task.higher_is_better else torch.maximum

    def compute(rows: Tensor) -> dict[str, Tensor]:
        labels = chosen.labels[rows]
        images = inference.to_input(chosen.images[rows], work.fabric.device).contiguous()  # AutoAttack flattens them
        targets = task.to_target(labels).to(work.fabric.device)
        if attack.pgd is not None:
            moved = pgd(frozen, images, targets, task, attack.pgd, seed=seed, index=rows)
        else:
            moved = _autoattack(frozen, images, targets, task.num_outputs, attack.eps, seed)
        with torch.no_grad():
            clean, misled = (task.score(frozen(shown).cpu(), labels) for shown in (images, moved))
        return {"clean": clean, "attacked": worse(clean, misled)}

    scores = blockwise(work, f"{work.title}: {attack.name}", len(chosen), compute, BATCH)
    return {"images": len(chosen), **{name: float(score.mean()) for name, score in scores.items()}}


def _autoattack(network: nn.Module, images: Tensor, targets: Tensor, classes: int, eps: float, seed: int) -> Tensor:
    """The standard version: APGD on cross-entropy, targeted APGD and FAB, Square; each on what is left."""
    with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
        attack = library().AutoAttack(network, eps=eps, device=images.device, seed=seed)
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(MOST_TARGETS, classes - 1)
        moved: Tensor = attack.run_standard_evaluation(images, targets, batch_size=len(images))[0]
    return moved
