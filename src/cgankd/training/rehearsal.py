"""A dry run of the first step, so that what a method cannot do is refused before training."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.settings import AugmentSettings
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet
from cgankd.distill import Objective
from cgankd.distill.limits import check_views
from cgankd.nets import inference
from cgankd.tasks import Task
from cgankd.training.forward import Sight


def rehearse(
    student: nn.Module,
    teacher: inference.Predictor | None,
    objective: Objective,
    task: Task,
    real: ImageSet,
    augment: AugmentSettings,
    fabric: Fabric,
) -> None:
    """Raise UserError for what the objective can't do with these networks and images; nothing is trained.

    It goes as far as training does before its first step: networks and layers are made, layers are looked for, and
    further views are drawn, of two images. teacher: None where one that only answers is not at hand. The objective
    is used up.
    """
    check_views(objective, task, augment)
    few = real.take(torch.arange(min(2, len(real))))
    batches = Batches(few, None, task, len(few), augment, 0, fabric.device)
    sight = Sight(student, teacher, objective, batches, task, fabric, 0)
    objective.views(batches.at(0), 0)
    sight.close()
