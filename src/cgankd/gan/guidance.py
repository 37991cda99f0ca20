"""The teacher inside the generator's loss: its outputs on generated images, and what its batch norm expects of them.

[ours], after DAFL (arXiv 1904.01186) and DeepInversion (arXiv 1912.08795). The teacher may have seen more images than
the owner has; then its batch-norm statistics describe images that the GAN never saw. Judge such a generator by a
second network, because images may please the teacher that was in the loss and nobody else.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.config.settings import GanSettings, GuidanceSettings
from cgankd.core.errors import UserError
from cgankd.core.runtime import Fabric
from cgankd.core.shared_rows import all_rows, var_mean
from cgankd.data.imageset import ImageSet
from cgankd.nets.precision import MixedPrecision
from cgankd.tasks import Task

LEAST = 1e-5  # keeps the logarithm of a variance finite


class Guidance:
    """Holds a copy of the teacher, in eval mode, so that the teacher itself is left as it is.

    images: of the size that the teacher takes; smaller generated images are enlarged to it.
    """

    def __init__(
        self, teacher: nn.Module, task: Task, settings: GuidanceSettings, fabric: Fabric, images: ImageSet
    ) -> None:
        self.teacher, self.task, self.settings = copy.deepcopy(teacher).eval().requires_grad_(False), task, settings
        self.precision = MixedPrecision(self.teacher, fabric, images.channels, images.size)
        self.size, self.distances = images.size, list[Tensor]()
        if settings.statistics:
            for module in self.teacher.modules():
                if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                    module.register_forward_pre_hook(self._compare)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """images: float [B, C, H, W] in [-1, 1]; targets [B]. A scalar.

        Where several processes share the batch, ``images`` are the rows of this one, and ``targets`` are those of all.
        """
        self.distances.clear()
        if tuple(images.shape[2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear")
        with self.precision.autocast():
            outputs = all_rows(self.teacher((images + 1.0) / 2.0).float(), len(targets))
        loss = self.settings.outputs * self.task.loss(outputs, targets) * self.task.guidance_scale
        if self.distances:
            loss = loss + self.settings.statistics * torch.stack(self.distances).mean()
        return loss

    def _compare(self, norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        self.distances.append(statistics_distance(args[0], norm))


def statistics_distance(maps: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """mean((m - m_run)^2 / v_run) + mean((log v - log v_run)^2) over channels; m, v: mean and variance of ``maps``."""
    variance, mean = var_mean(maps.float(), dim=(0, 2, 3))
    kept_mean, kept_variance = norm.running_mean, norm.running_var
    assert kept_mean is not None
    assert kept_variance is not None
    kept_variance = kept_variance + LEAST
    away = ((mean - kept_mean).square() / kept_variance).mean()
    return away + ((variance + LEAST).log() - kept_variance.log()).square().mean()


def check_terms(gan: GanSettings, task: Task, black_box: str | None) -> None:
    """UserError for terms of the generator's loss that this teacher or task can't have.

    black_box: the name of a teacher that gives outputs alone; None: the teacher is a network.
    """
    if gan.guidance is not None and black_box is not None:
        raise UserError(
            f"generator.guidance needs the teacher's gradient, but the teacher is {black_box}, which gives outputs "
            "alone; allowed: a teacher that is a network, or generator.guidance=none"
        )
    if gan.auxiliary and (not task.continuous or task.num_outputs > 1):
        raise UserError(
            f"generator.auxiliary is {gan.auxiliary:g}, which is for scalar labels that don't wrap; the task is "
            f"{task.name}, so allowed here: 0"
        )
