"""The interface of a task: targets, losses, errors, predictions and metrics of classification and regression.

Labels are in the user's unit (class index, degrees, years). Targets are what networks are trained on (class index, or
the label mapped to [0, 1] by the task's range).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from cgankd.core.hashing import content_key
from cgankd.tasks.axis import Line


class Task(ABC):
    """What is predicted, and how predictions are scored."""

    name: ClassVar[str]
    metric: ClassVar[str]  # the name of the score in results.json
    higher_is_better: ClassVar[bool]
    geometry_safe: ClassVar[bool]  # does the label stay right if an image is rotated, sheared or moved far?
    mixable: ClassVar[bool]  # can labels be mixed, as CutMix does?
    continuous: ClassVar[bool]
    label_noun: ClassVar[str]  # what a label is called, for texts
    error_words: ClassVar[str]  # what :meth:`error` is, for texts
    axis: ClassVar[Line]  # of the targets, if ``continuous``
    has_temperature: ClassVar[bool]  # can outputs be softened by a temperature, as logits can?
    filter_quantile: ClassVar[float]  # rho in the final paper
    replace_labels: ClassVar[str]  # how the final paper replaces labels: none, or hard (by the prediction)
    label_weight: ClassVar[float]  # r in plain KD: the weight of the label's loss
    teacher_weight: ClassVar[float]  # a in plain KD: the weight of the teacher's term
    clip_norm: ClassVar[float | None]  # default norm for clipping gradients; None: no clipping
    guidance_scale: ClassVar[float]  # makes a loss of a trained teacher about 1 where its outputs are badly wrong
    deployed_name: ClassVar[str]  # the name of an exported student's output
    bin_name: ClassVar[str]  # the groups that scores and attention are reported for
    window_names: ClassVar[tuple[str, str]]  # one, and several of the groups of :meth:`windows`
    window_score: ClassVar[str]  # the name of the mean Fréchet distance over these groups
    bounded_loss_name: ClassVar[str]  # the name of :meth:`bounded_loss`, for tables
    output_kinds: ClassVar[tuple[str, ...]]  # allowed kinds of a teacher's outputs; losses take the first
    converted_kinds: ClassVar[Mapping[str, str]]  # kinds that are converted -> how they are recognised and converted

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """The number of outputs of a network: the classes, or the coordinates of a scalar."""

    @property
    @abstractmethod
    def metric_unit(self) -> str:
        """The unit of the metric, for tables ("%" or the label's unit)."""

    @property
    @abstractmethod
    def label_unit(self) -> str:
        """The unit of labels, for texts; "" where they have none."""

    @property
    @abstractmethod
    def answer_words(self) -> str:
        """What is predicted for an image, for texts: "one of 10 classes", "a number in degrees"."""

    @property
    @abstractmethod
    def label_dtype(self) -> torch.dtype:
        """The dtype of labels in the user's unit: int64, float32 or float64."""

    @abstractmethod
    def to_target(self, labels: Tensor) -> Tensor:
        """Labels [N] -> targets [N]."""

    @abstractmethod
    def from_target(self, targets: Tensor) -> Tensor:
        """The inverse of :meth:`to_target`."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """The supervised loss: the mean over the batch, or each image's loss [B] if reduction is "none".

        outputs [B, num_outputs]; targets [B], or for a ``mixable`` task also probabilities [B, num_outputs].
        """

    def calibrated_loss(self, outputs: Tensor, targets: Tensor) -> float:
        """The mean :meth:`loss`, by which networks are compared: not worse for outputs that are only too bold or too
        cautious."""
        return float(self.loss(outputs, targets))

    def attack_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What an attack on a network raises, [B]: the :meth:`loss` of each image."""
        return self.loss(outputs, targets, reduction="none")

    @abstractmethod
    def imitation_loss(
        self, outputs: Tensor, teacher_outputs: Tensor, temperature: float, reduction: str = "mean"
    ) -> Tensor:
        """The teacher's term of plain KD, reduced as in :meth:`loss`; both [B, num_outputs]."""

    @abstractmethod
    def answer(self, outputs: Tensor) -> Tensor:
        """Outputs as predictions in the form of targets: class probabilities, or the scalar, [B, num_outputs]."""

    @abstractmethod
    def right_answer(self, targets: Tensor) -> Tensor:
        """Targets in the form of :meth:`answer`, [B, num_outputs]."""

    @abstractmethod
    def agreement(self, outputs: Tensor, targets: Tensor, scale: float) -> Tensor:
        """The agreement of outputs with targets, in [0, 1], [B]; 1/e for a scalar's error of ``scale``."""

    @abstractmethod
    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The target's probability minus the largest other probability, in [-1, 1], [B]."""

    @abstractmethod
    def uncertainty(self, outputs: Tensor) -> Tensor:
        """The uncertainty of outputs, from 0 to 1, [B]."""

    @abstractmethod
    def explained(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The value to explain, [B]. Its gradient with respect to the image shows which pixels matter."""

    @abstractmethod
    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The error of each image, by which the filter sorts (paper, section 3.3), [B]."""

    @property
    @abstractmethod
    def error_name(self) -> str:
        """The name of :meth:`error` on an axis, with its unit."""

    @property
    @abstractmethod
    def error_scale(self) -> float:
        """The factor from :meth:`error` to the unit in :attr:`error_name`."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Network outputs [B, num_outputs] -> labels in the user's unit, [B]."""

    @abstractmethod
    def deployed(self, outputs: Tensor) -> Tensor:
        """What a student that leaves gives in place of network outputs [B, num_outputs]."""

    @abstractmethod
    def from_deployed(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`deployed`: network outputs [B, num_outputs]."""

    def difference(self, deployed: Tensor, others: Tensor) -> Tensor:
        """What :meth:`deployed` gives, or labels, minus others, float64."""
        return deployed.to(torch.float64) - others.to(torch.float64)

    @property
    @abstractmethod
    def deployed_facts(self) -> dict[str, Any]:
        """What a user must know of :meth:`deployed`, as JSON: class names, or unit and range."""

    @abstractmethod
    def consensus(self, votes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Outputs of T networks [T, B, num_outputs] -> the outputs of their mean vote, [B, num_outputs].

        weights: [T, B], of sum 1 over T; None: equal weights.
        """

    @abstractmethod
    def doubt(self, votes: Tensor) -> Tensor:
        """The doubt about each of T networks on each image: [T, B, num_outputs] -> [T, B]; higher is less reliable."""

    def confidence(self, votes: Tensor) -> Tensor:
        """Weights of two or more networks for each image: [T, B, num_outputs] -> [T, B], of sum 1 over T.

        w_t = (1 - exp(d_t) / sum_s exp(d_s)) / (T - 1), d the :meth:`doubt`. The form is that of CA-MKD (Zhang, Chen
        and Wang, arXiv 2201.00007), where d is the cross-entropy with the true label. d here is [ours], because the
        true label of a generated image is not known.
        """
        return (1.0 - torch.softmax(self.doubt(votes), dim=0)) / (len(votes) - 1)

    @property
    @abstractmethod
    def answer_names(self) -> tuple[str, ...]:
        """The names of the columns of an :meth:`answer`: the classes; empty for a scalar."""

    @abstractmethod
    def from_answer(self, answers: Tensor) -> Tensor:
        """The inverse of :meth:`answer`: outputs that give these predictions, both [B, num_outputs]."""

    @abstractmethod
    def kind_of(self, outputs: Tensor, labels: Tensor, *, trained: bool) -> str:
        """The kind, of ``output_kinds``, of a teacher's outputs [N, num_outputs] for images with labels [N].

        trained: whether the teacher is trained for the task, so that errors on the labels count too. Raises ValueError,
        with what they look like and what to do, if they are unsuitable and their kind is not clear.
        """

    @abstractmethod
    def check_kind(self, outputs: Tensor, kind: str) -> None:
        """Raise ValueError, with their values, if outputs can't be of that kind."""

    @abstractmethod
    def misfit(self, outputs: Tensor, labels: Tensor, kind: str) -> str:
        """What is suspect about a trained teacher's outputs [N, num_outputs] of a kind, for images with labels [N].

        The rest of a sentence that begins with the teacher's name; empty where nothing is.
        """

    @abstractmethod
    def from_kind(self, outputs: Tensor, kind: str) -> Tensor:
        """Convert outputs of a kind to those that losses take, both [B, num_outputs]."""

    @abstractmethod
    def label_text(self, label: float) -> str:
        """A label as text in a file; :meth:`read_label` is the inverse."""

    @abstractmethod
    def short_text(self, label: float) -> str:
        """A label for people: the class, or the number without more digits than its range needs."""

    @abstractmethod
    def prediction_text(self, prediction: float, label: float, probability: float) -> str:
        """A prediction for people, with its probability, or its error against the ``label``; both in the user's unit.

        probability: of the predicted class, from 0 to 1; a scalar has none.
        """

    @abstractmethod
    def read_label(self, text: str) -> float:
        """The label in a text. Raises ValueError, with what is allowed, if it is none."""

    @abstractmethod
    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The score of each image, float64 [N]; its mean is the metric."""

    @abstractmethod
    def confusion(self, labels: Tensor, predictions: Tensor) -> Tensor | None:
        """How many images of each true class were predicted as each class, int64 [true, predicted].

        labels, predictions: [N], in the user's unit. None for a scalar, which has no classes; see :meth:`difference`.
        """

    @abstractmethod
    def constant(self, labels: Tensor) -> float:
        """The label that is the best answer to every image, for these labels, without a look at the images."""

    def constant_score(self, constant: float, labels: Tensor) -> float:
        """The metric of always answering ``constant``, for images with these labels."""
        target = self.to_target(torch.tensor([constant], dtype=labels.dtype))
        outputs = self.from_answer(self.right_answer(target)).expand(len(labels), -1)
        return float(self.score(outputs, labels).mean())

    @abstractmethod
    def bins(self, labels: Tensor) -> tuple[list[str], Tensor]:
        """Names of the bins that errors are reported for, and the bin of each label, int64 [N]."""

    @abstractmethod
    def windows(self, labels: Tensor, count: int, half_width: float) -> tuple[list[str], Tensor]:
        """Names of the groups in which a generator is evaluated, and the members of each, bool [groups, N].

        The classes; or ``count`` windows of a scalar's range, which may overlap. half_width: a share of the range.
        """

    @abstractmethod
    def bounded_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image in [0, 1] for the error bound, float32 [N]."""

    def renumbered(self, labels: Tensor, names: Sequence[str], where: str) -> Tensor:
        """Labels [N] of another source as labels of this task. where: names the source in messages.

        names: the classes of the source, where labels are their numbers. Raises UserError where they are not the
        classes of this task.
        """
        return labels

    @abstractmethod
    def check_labels(self, labels: Tensor, where: str) -> None:
        """Raise UserError if a label is not allowed in this task. where: names the source in the message."""

    @abstractmethod
    def check_test_labels(self, labels: Tensor, where: str) -> None:
        """Raise UserError if a test label can't be compared with predictions; a scalar may lie outside the range."""

    @property
    def content_key(self) -> str:
        """Depends on everything about the task that results depend on."""
        return content_key(self.to_json())

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A value for JSON, which :func:`from_json` reads."""

    def described(self) -> dict[str, Any]:
        """As :meth:`to_json`, for files that leave: without digits that say nothing."""
        return self.to_json()
