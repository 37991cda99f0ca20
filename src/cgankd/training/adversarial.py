"""PGD attacks: small changes to images that raise a network's loss, for training and for metrics/robustness.py."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from cgankd.config.settings import AttackSettings
from cgankd.core import ranks, rng
from cgankd.core.runtime import Fabric, to_device
from cgankd.data.batches import Batch
from cgankd.nets.inference import Predictor
from cgankd.tasks import Task


def pgd(
    network: Predictor,
    images: Tensor,
    targets: Tensor,
    task: Task,
    settings: AttackSettings,
    *,
    seed: int,
    index: Tensor,
) -> Tensor:
    """Change ``images`` (float [B, C, H, W] in [0, 1]) to raise the loss, each value by at most eps.

    From a random start within eps, ``settings.steps`` times x <- x + step sign(d loss / d x), each time clipped to
    within eps and [0, 1]; returns the last x (Madry et al., arXiv 1706.06083). The loss is the task's ``attack_loss``;
    for a scalar, the squared error gives the same steps as the absolute error. targets: as the loss takes them. index:
    int64 [B], each image's number; its random start depends on it and on ``seed``. A module is attacked in its current
    mode.
    """
    pixels = torch.arange(images[0].numel())
    start = 2.0 * rng.uniform(seed, "attack", index[:, None], pixels) - 1.0  # float64 [B, C H W]
    low, high = (images - settings.eps).clamp_(min=0.0), (images + settings.eps).clamp_(max=1.0)
    moved = images + settings.eps * to_device(start.view(images.shape).to(images.dtype), images.device)
    for _ in range(settings.steps):
        moved = torch.clamp(moved, low, high).detach().requires_grad_()
        with torch.enable_grad():
            loss = task.attack_loss(network(moved), targets).sum()
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + settings.step * gradient.sign()
    return torch.clamp(moved, low, high)


def attacked(
    student: nn.Module, batch: Batch, task: Task, settings: AttackSettings, fabric: Fabric, seed: int
) -> Batch:
    """The batch with images attacked by :func:`pgd` against ``student``, which is in training mode afterwards.

    The attack runs in eval mode, so that running statistics come only from the images that the student learns from.
    """

    def outputs(images: Tensor) -> Tensor:
        with fabric.autocast():
            return student(images).float()

    student.eval()
    index = torch.arange(len(batch.whole.index))[ranks.rows()]
    images = pgd(outputs, batch.images, batch.targets, task, settings, seed=seed, index=index)
    student.train()
    return dataclasses.replace(batch, images=images)
