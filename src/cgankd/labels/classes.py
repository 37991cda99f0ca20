"""Class labels: a learnt vector for each class; exactly the images of a class count as near its label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgankd.config.settings import SynthesisSettings
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.labels.space import DiscriminatorDraw, LabelPlan, LabelSpace, spread
from cgankd.tasks import Task


class ClassLabels(LabelSpace):
    """Labels of fakes are those of random training images, so classes have the frequencies of the training split."""

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
        """All classes, equally often; with one filter threshold for each class (Algorithm 1), or one for all."""
        classes = torch.arange(self.num_classes)
        group = torch.zeros_like(classes) if settings.filter and settings.filter.by == "all" else classes
        return LabelPlan(classes, spread(settings.images, self.num_classes), pool=classes, group=group)

    def pools(self, targets: Tensor) -> Tensor:
        return targets

    def near(self, predicted: Tensor, targets: Tensor, gaps: float) -> Tensor:
        """True for all images: classes have no order, so there are no gaps."""
        return torch.ones_like(targets, dtype=torch.bool)
