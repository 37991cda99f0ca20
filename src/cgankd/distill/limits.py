"""Refuses what a stack of methods cannot do, before anything is trained."""

from __future__ import annotations

from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.errors import UserError
from cgankd.distill.base import serving
from cgankd.distill.objective import Objective


def check_views(objective: Objective, augment: AugmentSettings) -> None:
    """UserError if images are mixed, but the method reads labels that can't be mixed.

    The teacher's outputs are computed on the mixed image itself, so they are always defined. But two images with
    different scalars have no label when mixed.
    """
    if not augment.mixes or objective.task.mixable or not objective.reads_labels:
        return
    setting = f"augment.mixup={augment.mixup:g}" if augment.mixup else f"augment.cutmix={augment.cutmix:g}"
    raise UserError(
        f"{setting}, but a mix of two images has no label in {objective.task.name}, and method {objective.name!r} "
        "learns from labels; allowed: 0, or a method that learns only from the teacher: fm"
    )


def check_adversarial(objective: Objective, settings: FitSettings) -> None:
    """UserError if images are attacked, but a method needs the teacher, whose outputs are for unchanged images."""
    if objective.needs_teacher and settings.adversarial is not None:
        raise UserError(
            f"fit.adversarial is set, but method {objective.name!r} asks the teacher about unchanged images; "
            "allowed: adversarial training by labels only (a teacher, nokd, nokd_longer, cgan)"
        )


def check_answers_suffice(objective: Objective, but: str) -> None:
    """UserError if a method needs more than the teacher's outputs. but: why there is no more, for the message."""
    for method, _ in objective.stacked:
        if method.needs() in ("inside", "gradient"):
            action = "looks inside" if method.needs() == "inside" else "differentiates"
            raise UserError(
                f"method {method.name!r} {action} the teacher, but {but}; "
                "allowed: a teacher that is a module, or a method that matches outputs: "
                f"{', '.join(serving(objective.task, needs='outputs'))}"
            )
