"""Class labels: a learnt vector per class; every image of a class is at its label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgankd.config.settings import SynthesisSettings
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.labels.space import DiscriminatorDraw, LabelPlan, LabelSpace, spread
from cgankd.tasks import Task


class ClassLabels(LabelSpace):
    """Fakes are drawn at the classes of random training images, so with the frequencies of the training split."""

    def __init__(self, num_classes: int, targets: Tensor) -> None:
        self.num_classes = num_classes
        self.targets = targets

    def train_embedding(self, work: Work, embedding: nn.Module, train: ImageSet, task: Task, seed: int) -> None:
        return  # learnt inside the GAN

    def discriminator_draw(self, size: int, rng: torch.Generator) -> DiscriminatorDraw:
        real = torch.randint(len(self.targets), (size,), generator=rng)
        targets = self.targets[real]
        return DiscriminatorDraw(real, targets, targets, None, None)

    def generator_draw(self, size: int, rng: torch.Generator) -> Tensor:
        return self.targets[torch.randint(len(self.targets), (size,), generator=rng)]

    def plan(self, settings: SynthesisSettings, held: tuple[Tensor, Tensor] | None = None) -> LabelPlan:
        """Every class, equally often; a threshold for each class (Algorithm 1), or one over all."""
        classes = torch.arange(self.num_classes)
        group = torch.zeros_like(classes) if settings.filter and settings.filter.by == "all" else classes
        return LabelPlan(classes, spread(settings.images, self.num_classes), pool=classes, group=group)

    def pools(self, targets: Tensor) -> Tensor:
        return targets

    def near(self, predicted: Tensor, targets: Tensor, gaps: float) -> Tensor:
        """All of them: classes lie in no order, so there is no gap between two."""
        return torch.ones_like(targets, dtype=torch.bool)
