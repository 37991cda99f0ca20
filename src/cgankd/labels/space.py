"""The contract of a label space: what the GAN, the density ratio and the synthesis ask about labels.

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
    """One discriminator batch: B real images, B labels to make fakes at, and the label D sees with both."""

    real: Tensor  # int64 [B], rows of the training split
    fake_targets: Tensor  # [B]
    condition: Tensor  # [B]
    real_weight: Tensor | None  # float32 [B]; None: all 1
    fake_weight: Tensor | None


@dataclasses.dataclass(frozen=True)
class LabelPlan:
    """Which labels are synthesised and how many images of each. L labels.

    pool: labels that share a burn-in for the maximum ratio. group: labels that share a filter threshold.
    """

    targets: Tensor  # [L]
    quota: Tensor  # int64 [L]
    pool: Tensor  # int64 [L]
    group: Tensor  # int64 [L]

    def with_total_per(self, part: Tensor, count: int) -> LabelPlan:
        """The same labels with about ``count`` images in each part (``pool`` or ``group``), evenly shared."""
        labels_in_part = torch.bincount(part)[part]
        return dataclasses.replace(self, quota=(count + labels_in_part - 1) // labels_in_part)

    def without_groups(self) -> LabelPlan:
        """The same for what is drawn before there is a filter."""
        return dataclasses.replace(self, group=torch.zeros_like(self.quota))


class LabelSpace(ABC):
    """Class labels or scalar labels, as the generator's side sees them."""

    @abstractmethod
    def train_embedding(
        self,
        work: Work,
        embedding: nn.Module,
        train: ImageSet,
        task: Task,
        seed: int,
    ) -> None:
        """Train an embedding in place, where that happens before the GAN."""

    @abstractmethod
    def discriminator_draw(self, size: int, rng: torch.Generator) -> DiscriminatorDraw:
        """Real images, fake labels and the labels they are judged at, for one discriminator batch."""

    @abstractmethod
    def generator_draw(self, size: int, rng: torch.Generator) -> Tensor:
        """Labels [B] for one generator batch."""

    @abstractmethod
    def plan(self, settings: SynthesisSettings, held: tuple[Tensor, Tensor] | None = None) -> LabelPlan:
        """Which labels to synthesise, ``settings.images`` in all, and which of them share a filter threshold.

        held: the distinct labels of ready images and how many each has, where such are used.
        """

    @abstractmethod
    def pools(self, targets: Tensor) -> Tensor:
        """Which labels [N] are near enough to share a scale of the density ratio, int64 [N], the same number."""

    @abstractmethod
    def near(self, predicted: Tensor, targets: Tensor, gaps: float) -> Tensor:
        """Which fakes' predicted labels lie within ``gaps`` widest gaps of their targets; all [N], bool [N].

        A widest gap is the largest distance between neighbouring distinct training labels.
        """


def spread(total: int, labels: int) -> Tensor:
    """``total`` images over ``labels`` labels as evenly as whole numbers allow, int64 [labels].

    >>> spread(7, 3).tolist()
    [2, 3, 2]
    """
    edges = (torch.arange(labels + 1) * total + labels // 2) // labels
    return edges.diff()
