"""What a label is to the generator's side of the road: how it is embedded, which images count as near it, and
which labels are asked for. The task (task.py) is the predictor's side of the same question."""

from __future__ import annotations

from torch import Tensor

from cgankd.config.settings import GeneratorSettings
from cgankd.labels.classes import ClassLabels
from cgankd.labels.scalars import ScalarLabels
from cgankd.labels.space import DiscriminatorDraw, LabelPlan, LabelSpace
from cgankd.tasks import Task

__all__ = ["ClassLabels", "DiscriminatorDraw", "LabelPlan", "LabelSpace", "ScalarLabels", "label_space"]


def label_space(task: Task, targets: Tensor, settings: GeneratorSettings) -> LabelSpace:
    """The label space of a task; ``targets`` [N] are the training split's."""
    if task.continuous:
        return ScalarLabels(targets, settings.vicinity, settings.label_input)
    return ClassLabels(task.num_outputs, targets)
