"""Where classification and regression differ: targets, losses, errors, predictions, metrics.

Labels are in the user's own unit (class index, degrees, years); targets are what networks are trained on
(class index, or the label mapped to [0, 1] by the task's range). Everything past this file asks the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cgankd.core.hashing import content_key


class Task(ABC):
    """What is predicted, and how a prediction is scored."""

    name: ClassVar[str]
    metric: ClassVar[str]  # the name of the score in results.json
    higher_is_better: ClassVar[bool]
    geometry_safe: ClassVar[bool]  # may it be turned, sheared, or moved far?
    mixable: ClassVar[bool]  # can labels be mixed, as CutMix does?
    continuous: ClassVar[bool]
    has_temperature: ClassVar[bool]  # can outputs be softened, as logits can?
    filter_quantile: ClassVar[float]  # rho of the final paper
    replace_labels: ClassVar[str]  # what the final paper does to labels: none, or hard (the prediction)
    label_weight: ClassVar[float]  # r of plain KD: the weight of the label's own loss
    teacher_weight: ClassVar[float]  # a of plain KD: the weight of the teacher's
    clip_norm: ClassVar[float | None]  # of gradients, unless settings say otherwise; None: not clipped
    bin_name: ClassVar[str]  # what scores, attention and the like are broken down by
    window_score: ClassVar[str]  # what the mean Fréchet distance over label windows is called
    bounded_loss_name: ClassVar[str]
    output_kinds: ClassVar[tuple[str, ...]]  # what a teacher's outputs may be; the first is what losses take
    converted_kinds: ClassVar[Mapping[str, str]]  # of these, those that become others: how they are known, and become

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """The width of a network's output."""

    @property
    @abstractmethod
    def metric_unit(self) -> str:
        """The unit of the metric, for tables ("%" or the label's unit)."""

    @property
    @abstractmethod
    def label_dtype(self) -> torch.dtype:
        """Of labels in the user's unit: int64, float32 or float64."""

    @abstractmethod
    def to_target(self, labels: Tensor) -> Tensor:
        """Labels [N] -> what networks are trained on, [N]."""

    @abstractmethod
    def from_target(self, targets: Tensor) -> Tensor:
        """The inverse of :meth:`to_target`."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """The supervised loss: a mean over the batch, or each image's [B] where reduction is "none".

        outputs [B, num_outputs], targets [B]; where labels are ``mixable``, or [B, num_outputs], probabilities.
        """

    @abstractmethod
    def imitation_loss(
        self, outputs: Tensor, teacher_outputs: Tensor, temperature: float, reduction: str = "mean"
    ) -> Tensor:
        """Plain KD's teacher term, reduced as :meth:`loss`; both [B, num_outputs]."""

    @abstractmethod
    def answer(self, outputs: Tensor) -> Tensor:
        """What outputs say, in the targets' own terms: class probabilities, or the number, [B, num_outputs]."""

    @abstractmethod
    def right_answer(self, targets: Tensor) -> Tensor:
        """Targets in the form of :meth:`answer`, [B, num_outputs]."""

    @abstractmethod
    def agreement(self, outputs: Tensor, targets: Tensor, scale: float) -> Tensor:
        """How far outputs bear a target out, in [0, 1], [B]; at a number's error of ``scale`` it is 1/e."""

    @abstractmethod
    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """By how much the target's probability exceeds that of every other answer, in [-1, 1], [B]."""

    @abstractmethod
    def uncertainty(self, outputs: Tensor) -> Tensor:
        """How undecided outputs are, from 0 to 1, [B]."""

    @abstractmethod
    def explained(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What an image is asked to explain, [B]: its gradient by the image is a map of the pixels that matter."""

    @abstractmethod
    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The per-image disagreement with a target that the filter sorts by (paper, section 3.3), [B]."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Network outputs [B, num_outputs] -> labels in the user's unit, [B]."""

    @abstractmethod
    def consensus(self, votes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Outputs of T networks [T, B, num_outputs] -> outputs [B, num_outputs] that say their mean vote.

        weights: [T, B], of sum 1 over T; None: all alike.
        """

    @abstractmethod
    def doubt(self, votes: Tensor) -> Tensor:
        """How little each of T networks is to be believed about each image: [T, B, num_outputs] -> [T, B]."""

    def confidence(self, votes: Tensor) -> Tensor:
        """Weights of two or more networks, image by image: [T, B, num_outputs] -> [T, B], of sum 1 over T.

        w_t = (1 - exp(d_t) / sum_s exp(d_s)) / (T - 1), d the :meth:`doubt`. The form is that of CA-MKD (Zhang,
        Chen and Wang, arXiv 2201.00007), whose d is the cross-entropy with the true label; what d is here is
        [ours], for nobody knows the true label of a generated image.
        """
        return (1.0 - torch.softmax(self.doubt(votes), dim=0)) / (len(votes) - 1)

    @property
    @abstractmethod
    def answer_names(self) -> tuple[str, ...]:
        """The names of an :meth:`answer`'s entries, where it has several: the classes."""

    @abstractmethod
    def from_answer(self, answers: Tensor) -> Tensor:
        """The inverse of :meth:`answer`: outputs that say it, both [B, num_outputs]."""

    @abstractmethod
    def kind_of(self, outputs: Tensor, labels: Tensor, *, trained: bool) -> str:
        """Which of ``output_kinds`` a teacher's outputs [N, num_outputs] for images with these labels [N] are.

        trained: whether the teacher knows the task already; else only their form tells. Raises ValueError, saying what
        they look like and what to do, where they can't be taken as they are and the kind is a question.
        """

    @abstractmethod
    def check_kind(self, outputs: Tensor, kind: str) -> None:
        """Raise ValueError, saying what was seen, where outputs can't be of that kind."""

    @abstractmethod
    def from_kind(self, outputs: Tensor, kind: str) -> Tensor:
        """Outputs of a kind as those that losses take, both [B, num_outputs]."""

    @abstractmethod
    def label_text(self, label: float) -> str:
        """A label as a file holds it; :meth:`read_label` is the inverse."""

    @abstractmethod
    def read_label(self, text: str) -> float:
        """The label that a text names. Raises ValueError, saying what is allowed, where it names none."""

    @abstractmethod
    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Per-image score, float64 [N], whose mean is the metric."""

    @abstractmethod
    def bins(self, labels: Tensor) -> tuple[list[str], Tensor]:
        """Names of the groups that errors are reported for, and each label's group, int64 [N]."""

    @abstractmethod
    def windows(self, labels: Tensor, count: int, half_width: float) -> tuple[list[str], Tensor]:
        """Names of the groups that a generator is judged in, and who is in each, bool [groups, N].

        Each class; or ``count`` windows of a scalar's range, ``half_width`` a share of it, which may overlap.
        """

    @abstractmethod
    def bounded_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Per-image loss in [0, 1] that the error bound is about, float32 [N]."""

    @abstractmethod
    def check_labels(self, labels: Tensor, where: str) -> None:
        """Raise UserError where a label is not one of this task's."""

    @abstractmethod
    def check_test_labels(self, labels: Tensor, where: str) -> None:
        """Raise UserError where a prediction can't be compared with a label; a scalar may lie outside the range."""

    @property
    def content_key(self) -> str:
        """Names what results depend on."""
        return content_key(self.to_json())

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What :func:`from_json` reads back."""
