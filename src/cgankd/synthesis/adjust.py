"""M2: the filter drops the fakes the teachers disagree with most, and their labels may become what these say."""

from __future__ import annotations

import torch
from torch import Tensor

from cgankd.config.settings import SynthesisSettings
from cgankd.core.errors import UserError
from cgankd.data.imageset import TARGET, ImageSet
from cgankd.tasks import Task


def disagreement(task: Task, votes: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean of the teachers' errors, [B]. votes: outputs of T teachers [T, B, num_outputs]; targets [B].

    weights: [T, B], of sum 1 over T; None: all alike.
    """
    errors = torch.stack([task.error(outputs, targets) for outputs in votes])
    return errors.mean(dim=0) if weights is None else (errors * weights).sum(dim=0)


def thresholds(errors: Tensor, group: Tensor, groups: int, rho: float) -> Tensor:
    """alpha: the rho-quantile of the errors in each group; float32 [groups].

    errors: float32 [N], of subsampled fakes. group: int64 [N]: the class (Algorithm 1), all 0 (Algorithm 2), or the
    label's bin [ours]: as large a share of every bin is then kept. A group without a fake gets infinity: it keeps
    what comes.
    """
    alpha = torch.full((groups,), torch.inf)
    for number in range(groups):
        inside = errors[group == number]
        if len(inside):
            alpha[number] = torch.quantile(inside.float(), rho)
            if not (inside < alpha[number]).any():  # all errors equal (often 0): strictly below would keep nothing
                alpha[number] = torch.nextafter(alpha[number], torch.tensor(torch.inf))
    return alpha


def keep(errors: Tensor, alpha: Tensor) -> Tensor:
    """Strictly below the threshold of its group; both float32 [N]."""
    return errors < alpha


def replacement(settings: SynthesisSettings, task: Task) -> str:
    """What becomes of the fakes' labels: none, hard or soft; UserError where the task can't have that."""
    if settings.replace == "soft" and not task.mixable:
        raise UserError("synthesis.replace = soft needs classes; allowed for a scalar: auto, none, hard")
    return task.replace_labels if settings.replace == "auto" else settings.replace


def relabelled(fakes: ImageSet, replace: str) -> ImageSet:
    """The same images with other labels, by what the teachers said of the clean images.

    none: as they are. hard: the prediction (column ``prediction``). soft: the label stays, and the probabilities
    (column ``probabilities``) become what networks are trained on.
    """
    if replace == "hard":
        return ImageSet(fakes.images, fakes.columns["prediction"].to(fakes.labels.dtype), fakes.columns)
    if replace == "soft":
        return ImageSet(fakes.images, fakes.labels, {**fakes.columns, TARGET: fakes.columns["probabilities"]})
    return fakes
