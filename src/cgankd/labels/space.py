"""The interface of a label space: what the GAN, the density ratio and the synthesis need of labels.

Everything here is in targets (class index, or the scalar mapped to [0, 1]), never in the user's unit.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from cgankd.config.settings import SynthesisSettings
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.tasks import Task


@dataclasses.dataclass(frozen=True)
class DiscriminatorDraw:
    """One discriminator batch: B real images, B labels for fakes, and the labels that D gets with both."""

    real: Tensor  # int64 [B], rows of the training split
    fake_targets: Tensor  # [B]
    condition: Tensor  # [B]
    real_weight: Tensor | None  # float32 [B]; None: all 1
    fake_weight: Tensor | None


@dataclasses.dataclass(frozen=True)
class LabelPlan:
    """The labels to synthesise, and the number of images for each. L labels.

    pool: labels that share a burn-in for the maximum ratio. group: labels that share a filter threshold.
    """

    targets: Tensor  # [L]
    quota: Tensor  # int64 [L]
    pool: Tensor  # int64 [L]
    group: Tensor  # int64 [L]

    def with_total_per(self, part: Tensor, count: int) -> LabelPlan:
        """The same labels, with at least ``count`` images in each part (``pool`` or ``group``), divided evenly."""
        labels_in_part = torch.bincount(part)[part]
        return dataclasses.replace(self, quota=(count + labels_in_part - 1) // labels_in_part)

    def for_calibration(self, count: int) -> LabelPlan:
        """The same labels, with ``count`` images or a few more in each group, as often as they are asked for.

        So a quantile over these images is one over those of the plan. Where all labels are asked for equally often, it
        does not depend on their number.
        """
        if int(self.quota.max() - self.quota.min()) <= 1:
            return self.with_total_per(self.group, count)
        quota = torch.zeros_like(self.quota)
        for number in self.group.unique():
            inside = self.group == number
            quota[inside] = shares(self.quota[inside], count)
        return dataclasses.replace(self, quota=quota)

    def without_groups(self) -> LabelPlan:
        """The same with one group, for images drawn before there is a filter."""
        return dataclasses.replace(self, group=torch.zeros_like(self.quota))


class LabelSpace(ABC):
    """Class labels or scalar labels, for the GAN, the density ratio and the synthesis."""

    @abstractmethod
    def train_embedding(
        self,
        work: Work,
        embedding: nn.Module,
        train: ImageSet,
        task: Task,
        seed: int,
    ) -> None:
        """Train the embedding in place, if it is trained before the GAN; else do nothing."""

    @abstractmethod
    def discriminator_draw(self, size: int, rng: torch.Generator) -> DiscriminatorDraw:
        """Real images, labels of fakes and the labels that D is conditioned on, for one batch of B = ``size``."""

    @abstractmethod
    def generator_draw(self, size: int, rng: torch.Generator) -> Tensor:
        """Labels [B] for one generator batch of B = ``size``."""

    @abstractmethod
    def plan(self, settings: SynthesisSettings, held: tuple[Tensor, Tensor] | None = None) -> LabelPlan:
        """The labels to synthesise, for ``settings.images`` images in total, and their pools and groups.

        held: the distinct labels [L] of ready images and the number of images of each, if ready images are used.
        """

    @abstractmethod
    def pools(self, targets: Tensor) -> Tensor:
        """The pool of each label [N], int64 [N]. Labels in one pool share a scale of the density ratio."""

    @abstractmethod
    def near(self, predicted: Tensor, targets: Tensor, gaps: float) -> Tensor:
        """Whether each predicted label is within ``gaps`` times the widest gap of its target; both [N], bool [N].

        The widest gap is the largest distance between neighbouring distinct training labels.
        """


def spread(total: int, labels: int) -> Tensor:
    """Divide ``total`` images over ``labels`` labels as evenly as possible, int64 [labels].

    >>> spread(7, 3).tolist()
    [2, 3, 2]
    """
    edges = (torch.arange(labels + 1) * total + labels // 2) // labels
    return edges.diff()


def shares(counts: Tensor, total: int) -> Tensor:
    """``total`` divided in proportion to ``counts``, as whole numbers, int64 [L]; all 0 where the counts are.

    >>> shares(torch.tensor([1, 0, 3]), 8).tolist()
    [2, 0, 6]
    """
    edges = (counts.cumsum(0).double() * total / max(int(counts.sum()), 1)).round().long()
    return edges.diff(prepend=torch.zeros(1, dtype=torch.int64))
