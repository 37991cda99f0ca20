"""Robustness: the score of a network on test images under adversarial attack."""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.config.settings import AttackSettings, RobustnessSettings
from cgankd.core import extras, rng
from cgankd.core.blockwise import blockwise
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.nets import inference
from cgankd.tasks import Task
from cgankd.training.adversarial import pgd

FEWEST_CLASSES = 4  # because AutoAttack's targeted loss uses the third and fourth largest logits
MOST_TARGETS = 9  # target classes of AutoAttack's standard version
BATCH = 250


def check(settings: RobustnessSettings, task: Task) -> None:
    """UserError where an attack of the settings is not possible. Called before any training."""
    if "autoattack" not in settings.attacks:
        return
    if task.num_outputs < FEWEST_CLASSES:
        raise UserError(
            f"metrics.robustness.attacks holds autoattack, whose losses need {FEWEST_CLASSES} classes or more, but "
            f"the answer here is {task.answer_words}; allowed: pgd"
        )
    library()


def library() -> Any:
    """AutoAttack by its authors (arXiv 2003.01690); UserError where it can't be imported."""
    return extras.opened("pyautoattack", "metrics.robustness.attacks holds autoattack, which", "robust")


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack, with the settings that it depends on and no others.

    eps: the largest change of any pixel value. images: number of test images. pgd: settings of PGD; None: AutoAttack.
    version: of AutoAttack's package.
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
    """The task's metric on ``attack.images`` random images of ``test``, clean and under one attack.

    The score of an image under attack is the worse of its two scores. All is computed at full precision, because
    rounded gradients would make a network look more robust than it is. The random numbers and the choice of images
    depend on ``seed`` alone, so that networks are compared on the same images.
    """
    frozen = inference.place(copy.deepcopy(network), work.fabric).eval().requires_grad_(False)
    order = rng.order(len(test), seed, "robustness/images")
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
            clean, attacked = (task.score(frozen(batch).cpu(), labels) for batch in (images, moved))
        return {"clean": clean, "attacked": worse(clean, attacked)}

    scores = blockwise(work, f"{work.title}: {attack.name}", len(chosen), compute, BATCH)
    return {"images": len(chosen), **{name: float(score.mean()) for name, score in scores.items()}}


def _autoattack(network: nn.Module, images: Tensor, targets: Tensor, classes: int, eps: float, seed: int) -> Tensor:
    """The standard version: APGD on cross-entropy, targeted APGD, targeted FAB, Square. Each attacks the images that
    the ones before it left correctly classified."""
    with rng.restored(images.device):
        attack = library().AutoAttack(network, eps=eps, device=images.device, seed=seed)
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(MOST_TARGETS, classes - 1)
        moved: Tensor = attack.run_standard_evaluation(images, targets, batch_size=len(images))[0]
    return moved
