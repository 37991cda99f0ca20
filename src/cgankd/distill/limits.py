"""What a stack of methods cannot do: refused with one sentence before anything is trained."""

from __future__ import annotations

from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.errors import UserError
from cgankd.distill.base import serving
from cgankd.distill.objective import Objective


def check_views(objective: Objective, augment: AugmentSettings) -> None:
    """UserError where images are mixed but labels are needed that can't be mixed.

    A teacher is asked about the mixed image itself, so any method may see mixed images; but a mix of two scalars'
    images has no label.
    """
    if not augment.mixes or objective.task.mixable or not objective.reads_labels:
        return
    setting = f"augment.mixup={augment.mixup:g}" if augment.mixup else f"augment.cutmix={augment.cutmix:g}"
    raise UserError(
        f"{setting}, but a mix of two images has no label in {objective.task.name}, and method {objective.name!r} "
        "learns from labels; allowed: 0, or methods that learn from the teacher alone: fm"
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
