"""A dry run before the first step, so that unsuitable methods are refused before training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgankd.config.settings import AugmentSettings
from cgankd.core.errors import UserError
from cgankd.core.runtime import Fabric
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
    """Raise UserError if the objective can't be used with these networks and images; nothing is trained.

    It does what training does before its first step, with two images: it creates networks and adapter layers, finds the
    layers to tap, and draws extra views. teacher: None for a black-box teacher. The objective can't be used afterwards.
    """
    check_views(objective, augment)
    few = TrainingImages(real.take(torch.arange(min(2, len(real)))))
    batches = Batches(few, objective.task, min(2, len(real)), augment, 0, fabric.device)
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    try:
        batch = batches.at(0)
        objective.views(batch, 0)
        if objective.input_gradients and objective.asks_teacher:
            _check_gradient(forward, objective, batch.images)
    finally:
        forward.close()


def _check_gradient(forward: BatchForward, objective: Objective, images: Tensor) -> None:
    """UserError if a method needs the gradient of the teacher's outputs by the images, but there is none."""
    with torch.enable_grad():
        outputs, _ = forward.teacher_forward(images.requires_grad_())
    if not outputs.requires_grad:
        raise UserError(
            f"method {objective.name!r} differentiates the teacher, but its outputs have no gradient (detached, or "
            "computed under no_grad or inference_mode); allowed: a teacher that keeps gradients, or another method"
        )
