"""PGD: images changed by a little so that a network errs; for fit.py to train on, for metrics/robustness.py."""

from __future__ import annotations

import dataclasses

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.config.settings import AttackSettings
from cgankd.core import rng
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
    """``images`` (float [B, C, H, W] in [0, 1]) moved to a larger loss, each number by eps at most.

    A random start within eps, then ``settings.steps`` times x <- x + step sign(d loss / d x), brought back within
    eps and [0, 1] each time; the last x is returned (Madry et al., arXiv 1706.06083). The loss is the task's: of
    a scalar the squared error, whose steps are the absolute error's. targets: as the loss takes them. index: int64
    [B], each image's number, on which and on ``seed`` its start depends. A module is attacked in the mode it is in.
    """
    places = torch.arange(images[0].numel())
    start = 2.0 * rng.uniform(seed, "attack", index[:, None], places) - 1.0  # float64 [B, C H W]
    low, high = (images - settings.eps).clamp_(min=0.0), (images + settings.eps).clamp_(max=1.0)
    moved = images + settings.eps * start.view(images.shape).to(images)
    for _ in range(settings.steps):
        moved = torch.clamp(moved, low, high).detach().requires_grad_()
        with torch.enable_grad():
            loss = task.loss(network(moved), targets, reduction="none").sum()
        (slope,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + settings.step * slope.sign()
    return torch.clamp(moved, low, high)


def attacked(
    student: nn.Module, batch: Batch, task: Task, settings: AttackSettings, fabric: Fabric, seed: int
) -> Batch:
    """The batch with its images as :func:`pgd` moves them against ``student``, which is left in training mode.

    It is attacked in eval mode, so that its running statistics are those of the images it learns from.
    """

    def outputs(images: Tensor) -> Tensor:
        with fabric.autocast():
            return student(images).float()

    student.eval()
    index = torch.arange(len(batch.images))
    images = pgd(outputs, batch.images, batch.targets, task, settings, seed=seed, index=index)
    student.train()
    return dataclasses.replace(batch, images=images)
