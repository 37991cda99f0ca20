"""A dry run of the first step, so that what a method cannot do is refused before training."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.settings import AugmentSettings
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import Objective
from cgankd.distill.limits import check_views
from cgankd.nets import inference
from cgankd.training.forward import BatchForward


def rehearse(
    student: nn.Module,
    teacher: inference.Predictor | None,
    objective: Objective,
    real: ImageSet,
    augment: AugmentSettings,
    fabric: Fabric,
) -> None:
    """Raise UserError for what the objective can't do with these networks and images; nothing is trained.

    It goes as far as training does before its first step, with two images: networks and adapter layers are made, the
    layers to be looked at are found, further views are drawn. teacher: None for one that only answers. The objective
    can't be used afterwards.
    """
    check_views(objective, augment)
    few = TrainingImages(real.take(torch.arange(min(2, len(real)))))
    batches = Batches(few, objective.task, min(2, len(real)), augment, 0, fabric.device)
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    try:
        objective.views(batches.at(0), 0)
    finally:
        forward.close()
