"""M2: drops the fakes whose labels the teachers disagree with most, and may replace the labels of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from cgankd.config.settings import SynthesisSettings
from cgankd.core.errors import UserError
from cgankd.core.groups import in_groups
from cgankd.data.imageset import TARGET, ImageSet
from cgankd.tasks import Task


def disagreement(task: Task, votes: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean of the teachers' errors, [B]. votes: outputs of T teachers [T, B, num_outputs]; targets [B].

    weights: [T, B], which sum to 1 over T; None: all equal.
    """
    errors = torch.stack([task.error(outputs, targets) for outputs in votes])
    return errors.mean(dim=0) if weights is None else (errors * weights).sum(dim=0)


def thresholds(errors: Tensor, group: Tensor, groups: int, rho: float) -> Tensor:
    """alpha: the rho-quantile of the errors in each group; float32 [groups].

    errors: float32 [N], of subsampled fakes. group: int64 [N]: the class (Algorithm 1), all 0 (Algorithm 2), or the
    label's bin [ours], so that every bin keeps the same share. A group without a fake gets infinity, so it keeps all.
    """
    alpha = torch.full((groups,), torch.inf)
    for number, inside in enumerate(in_groups(errors, group, groups)):
        if len(inside):
            alpha[number] = torch.quantile(inside.float(), rho)
            if not (inside < alpha[number]).any():  # all errors are equal (often 0), so none is strictly below
                alpha[number] = torch.nextafter(alpha[number], torch.tensor(torch.inf))
    return alpha


def keep(errors: Tensor, alpha: Tensor) -> Tensor:
    """Whether each error is strictly below the threshold of its group; both float32 [N]."""
    return errors < alpha


def check_filter(settings: SynthesisSettings, task: Task) -> None:
    """UserError where the filter asks for bins of the label range, but labels are classes."""
    if settings.filter is not None and isinstance(settings.filter.by, int) and not task.continuous:
        raise UserError(
            f"synthesis.filter.by = {settings.filter.by} needs scalar labels, because it is a number of bins of their "
            "range; allowed for classes: auto, label, all"
        )


def replacement(settings: SynthesisSettings, task: Task) -> str:
    """How the fakes' labels are replaced: none, hard or soft; UserError where the task does not allow it."""
    if settings.replace == "soft" and not task.mixable:
        raise UserError("synthesis.replace = soft needs classes; allowed for a scalar: auto, none, hard")
    return task.replace_labels if settings.replace == "auto" else settings.replace


def relabelled(fakes: ImageSet, replace: str) -> ImageSet:
    """The same images with labels replaced by the teachers' predictions for the clean images.

    none: labels stay. hard: the prediction (column ``prediction``) is the label. soft: labels stay, and the
    probabilities (column ``probabilities``) are the training targets.
    """
    if replace == "hard":
        return ImageSet(fakes.images, fakes.columns["prediction"].to(fakes.labels.dtype), fakes.columns)
    if replace == "soft":
        return ImageSet(fakes.images, fakes.labels, {**fakes.columns, TARGET: fakes.columns["probabilities"]})
    return fakes
