"""What a stack of methods cannot do: refused with one sentence before anything is trained."""

from __future__ import annotations

from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.errors import UserError
from cgankd.distill.base import serving
from cgankd.distill.objective import Objective
from cgankd.tasks import Task


def check_views(objective: Objective, task: Task, augment: AugmentSettings) -> None:
    """UserError where images are mixed but the teacher is needed, whose outputs belong to whole images."""
    if objective.needs_teacher and task.mixable and augment.cutmix:
        raise UserError(
            f"augment.cutmix={augment.cutmix:g}, but method {objective.name!r} asks the teacher about each image "
            "by itself; allowed: 0 with a method that needs the teacher"
        )


def check_adversarial(objective: Objective, settings: FitSettings) -> None:
    """UserError where images are attacked but the teacher is needed, whose outputs belong to images as they are."""
    if objective.needs_teacher and settings.adversarial is not None:
        raise UserError(
            f"fit.adversarial is set, but method {objective.name!r} asks the teacher about images as they are; "
            "allowed: adversarial training by labels alone (a teacher, nokd, nokd_longer, cgan)"
        )


def check_answers_suffice(objective: Objective, but: str) -> None:
    """UserError where a method needs more of the teacher than its outputs; ``but`` says why it has no more."""
    for method, _ in objective.stacked:
        if method.needs() in ("inside", "gradient"):
            does = "looks inside" if method.needs() == "inside" else "differentiates"
            raise UserError(
                f"method {method.name!r} {does} the teacher, but {but}; "
                "allowed: a teacher that is a module, or a method that matches outputs: "
                f"{', '.join(serving(objective.task, needs='outputs'))}"
            )
