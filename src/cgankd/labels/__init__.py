"""Labels as the generator uses them: their embedding, which images count as near a label, and which labels are
synthesised. What predicting networks need of labels is in cgankd.tasks."""

from __future__ import annotations

from torch import Tensor, nn

from cgankd.config.settings import ScalarLabelSettings
from cgankd.labels.classes import ClassLabels
from cgankd.labels.scalars import FourierEmbedding, ScalarLabels, new_embedding
from cgankd.labels.space import DiscriminatorDraw, LabelPlan, LabelSpace
from cgankd.tasks import Task

__all__ = [
    "ClassLabels",
    "DiscriminatorDraw",
    "LabelPlan",
    "LabelSpace",
    "ScalarLabels",
    "label_embedding",
    "label_space",
    "ratio_embedding",
]


def label_space(task: Task, targets: Tensor, settings: ScalarLabelSettings | None = None) -> LabelSpace:
    """The label space of a task.

    targets: [N], of the training split. settings: how scalar labels enter the GAN; only the GAN uses them.
    """
    if task.continuous:
        return ScalarLabels(targets, settings or ScalarLabelSettings(), task.axis)
    return ClassLabels(task.num_outputs, targets)


def label_embedding(task: Task, settings: ScalarLabelSettings | None, dim: int) -> nn.Module:
    """The untrained label embedding of a GAN, targets [B] -> [B, dim]."""
    if task.continuous:
        return new_embedding((settings or ScalarLabelSettings()).label_input, dim, task.axis)
    return nn.Embedding(task.num_outputs, dim)


def ratio_embedding(task: Task, dim: int) -> nn.Module:
    """The label input of the density ratio, targets [B] -> [B, dim]: learnt for classes, fixed for scalars."""
    return FourierEmbedding(dim, task.axis) if task.continuous else nn.Embedding(task.num_outputs, dim)
