"""M2: the filter drops the fakes the teacher disagrees with most, and their labels may become its predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from cgankd.data.imageset import ImageSet


def thresholds(errors: Tensor, group: Tensor, groups: int, rho: float) -> Tensor:
    """alpha: the rho-quantile of the errors in each group; float32 [groups].

    errors: float32 [N], the task's error of subsampled fakes. group: int64 [N]: the class (Algorithm 1), or all 0
    (Algorithm 2). A group without a fake gets infinity: it keeps what comes.
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


def replaced(fakes: ImageSet) -> ImageSet:
    """The same images, labelled by the teacher's prediction on the clean image (column ``prediction``)."""
    return ImageSet(fakes.images, fakes.columns["prediction"].to(fakes.labels.dtype), fakes.columns)
