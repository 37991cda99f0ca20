"""Where classification and regression differ: targets, losses, errors, predictions, metrics.

Labels are in the user's own unit (class index, degrees, years); targets are what networks are trained on
(class index, or the label mapped to [0, 1] by the task's range). Everything past this file asks the task.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.errors import UserError


class Task(ABC):
    """What is predicted, and how a prediction is scored."""

    name: ClassVar[str]
    metric: ClassVar[str]  # the name of the score in results.json
    higher_is_better: ClassVar[bool]
    mirror_safe: ClassVar[bool]  # may an image be mirrored without its label changing?
    geometry_safe: ClassVar[bool]  # may it be turned, sheared, or moved far?
    mixable: ClassVar[bool]  # has a picture cut out of two images a label, one in probabilities?
    continuous: ClassVar[bool]
    filter_quantile: ClassVar[float]  # rho of the final paper
    replace_labels: ClassVar[str]  # what the final paper does to labels: none, or hard (the prediction)
    label_weight: ClassVar[float]  # r of plain KD: the weight of the label's own loss
    teacher_weight: ClassVar[float]  # a of plain KD: the weight of the teacher's
    bin_name: ClassVar[str]  # what scores, attention and the like are broken down by
    window_score: ClassVar[str]  # what the mean Fréchet distance over label windows is called
    bounded_loss_name: ClassVar[str]

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """The width of a network's output."""

    @property
    @abstractmethod
    def metric_unit(self) -> str:
        """The unit of the metric, for tables ("%" or the label's unit)."""

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
    def to_json(self) -> dict[str, Any]:
        """What :func:`from_json` reads back."""


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One class index per image, int64 in [0, number of classes)."""

    class_names: tuple[str, ...]

    name = "classification"
    metric = "accuracy"
    higher_is_better = True
    mirror_safe = True
    geometry_safe = True
    mixable = True
    continuous = False
    filter_quantile = 0.9
    replace_labels = "none"
    label_weight = 0.1
    teacher_weight = 0.9
    bin_name = "class"
    window_score = "Intra-FID"
    bounded_loss_name = "the share of wrong predictions"

    LEAST: ClassVar[float] = 1e-12  # the probability of a class that an answer excludes

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise UserError(f"found {len(self.class_names)} distinct label(s); at least two are needed")

    @property
    def num_outputs(self) -> int:
        return len(self.class_names)

    @property
    def metric_unit(self) -> str:
        return "%"

    def to_target(self, labels: Tensor) -> Tensor:
        return labels.to(torch.int64)

    def from_target(self, targets: Tensor) -> Tensor:
        return targets.to(torch.int64)

    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(outputs, targets, reduction=reduction)

    def imitation_loss(
        self, outputs: Tensor, teacher_outputs: Tensor, temperature: float, reduction: str = "mean"
    ) -> Tensor:
        """T^2 KL(p_teacher || p_student) at temperature T (Hinton et al., arXiv 1503.02531)."""
        student = F.log_softmax(outputs / temperature, dim=1)
        teacher = F.log_softmax(teacher_outputs / temperature, dim=1)
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True)
        each = reduction == "none"
        return (divergence.sum(dim=1) if each else divergence.sum() / len(outputs)) * temperature**2

    def answer(self, outputs: Tensor) -> Tensor:
        return torch.softmax(outputs, dim=1)

    def right_answer(self, targets: Tensor) -> Tensor:
        """One-hot; targets that are probabilities [B, classes] already stay."""
        return targets if targets.ndim == 2 else F.one_hot(targets, self.num_outputs).float()

    def agreement(self, outputs: Tensor, targets: Tensor, scale: float) -> Tensor:
        """The target's probability; it needs no scale."""
        return (self.answer(outputs) * self.right_answer(targets)).sum(dim=1)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        answer, right = self.answer(outputs), self.right_answer(targets).argmax(dim=1, keepdim=True)
        others = answer.scatter(1, right, -1.0).amax(dim=1)
        return answer.gather(1, right).squeeze(1) - others

    def uncertainty(self, outputs: Tensor) -> Tensor:
        """The entropy as a share of its largest value, log(classes)."""
        return torch.special.entr(self.answer(outputs)).sum(dim=1) / math.log(self.num_outputs)

    def explained(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy."""
        return self.loss(outputs, targets, reduction="none")

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets, reduction="none")

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(dim=1)

    def consensus(self, votes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Logits of the mean probabilities; one network's own logits as they are."""
        if len(votes) == 1:
            return votes[0]
        logits = F.log_softmax(votes, dim=2)
        if weights is not None:
            return torch.logsumexp(logits + weights.log()[:, :, None], dim=0)
        return torch.logsumexp(logits, dim=0) - math.log(len(votes))

    def doubt(self, votes: Tensor) -> Tensor:
        """The entropy of its answer, in nats."""
        return torch.special.entr(torch.softmax(votes, dim=2)).sum(dim=2)

    @property
    def answer_names(self) -> tuple[str, ...]:
        return self.class_names

    def from_answer(self, answers: Tensor) -> Tensor:
        """Log-probabilities; one of 0 counts as ``LEAST``, so that every error is finite."""
        return answers.clamp(min=self.LEAST).log()

    def label_text(self, label: float) -> str:
        return self.class_names[int(label)]

    def read_label(self, text: str) -> float:
        if text not in self.class_names:
            raise ValueError(f"one of {', '.join(self.class_names)}")
        return self.class_names.index(text)

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (self.predict(outputs) == labels).to(torch.float64) * 100.0

    def bins(self, labels: Tensor) -> tuple[list[str], Tensor]:
        return list(self.class_names), labels.to(torch.int64)

    def windows(self, labels: Tensor, count: int, half_width: float) -> tuple[list[str], Tensor]:
        return list(self.class_names), labels == torch.arange(self.num_outputs)[:, None]

    def bounded_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self.predict(outputs) != targets).float()

    def check_labels(self, labels: Tensor, where: str) -> None:
        bad = (labels < 0) | (labels >= self.num_outputs)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise UserError(
                f"{where}: label {labels[row].item()} at row {row} is not a class; "
                f"allowed: 0 to {self.num_outputs - 1}"
            )

    def to_json(self) -> dict[str, Any]:
        return {"type": self.name, "class_names": list(self.class_names)}


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """One real number per image, float32, of any range and sign.

    ``low`` and ``high`` are the range, in the label's ``unit``, that is mapped to [0, 1].
    """

    low: float
    high: float
    unit: str = ""

    name = "regression"
    metric = "mae"
    higher_is_better = False
    mirror_safe = False
    geometry_safe = False  # the scalar may be an angle, a count or a position
    mixable = False  # a picture of two angles has no angle
    continuous = True
    filter_quantile = 0.7
    replace_labels = "hard"
    label_weight = 0.5
    teacher_weight = 0.5
    bin_name = "label range"
    window_score = "SFID"
    bounded_loss_name = "the absolute error as a share of the label range"

    REPORT_BINS: ClassVar[int] = 10

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError(
                f"the label range is {self.low:g} to {self.high:g}; the low end must be finite and below the high "
                "(one single distinct label can't be learnt)"
            )

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def metric_unit(self) -> str:
        return self.unit

    @property
    def span(self) -> float:
        """The width of the range in the label's unit."""
        return self.high - self.low

    def to_target(self, labels: Tensor) -> Tensor:
        return ((labels.to(torch.float64) - self.low) / self.span).to(torch.float32)

    def from_target(self, targets: Tensor) -> Tensor:
        return (targets.to(torch.float64) * self.span + self.low).to(torch.float32)

    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        return F.mse_loss(outputs.squeeze(1), targets, reduction=reduction)

    def imitation_loss(
        self, outputs: Tensor, teacher_outputs: Tensor, temperature: float, reduction: str = "mean"
    ) -> Tensor:
        """Squared distance to the teacher's output; a scalar has no temperature."""
        return F.mse_loss(outputs.squeeze(1), teacher_outputs.squeeze(1), reduction=reduction)

    def answer(self, outputs: Tensor) -> Tensor:
        return outputs

    def right_answer(self, targets: Tensor) -> Tensor:
        return targets.unsqueeze(1)

    def agreement(self, outputs: Tensor, targets: Tensor, scale: float) -> Tensor:
        """exp(-error / scale)."""
        return torch.exp(-self.error(outputs, targets) / scale)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """-1: a number leaves no other answer behind, it is never out of danger."""
        return torch.full_like(targets, -1.0)

    def uncertainty(self, outputs: Tensor) -> Tensor:
        """1/2: a number does not tell how sure it is."""
        return torch.full_like(outputs[:, 0], 0.5)

    def explained(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The number itself: the gradient of a squared error would be nil wherever the number is right."""
        return outputs.squeeze(1)

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze(1).clamp(0.0, 1.0) - targets).abs()

    def predict(self, outputs: Tensor) -> Tensor:
        return self.from_target(outputs.squeeze(1).clamp(0.0, 1.0))

    def consensus(self, votes: Tensor, weights: Tensor | None = None) -> Tensor:
        return votes.mean(dim=0) if weights is None else (votes * weights[:, :, None]).sum(dim=0)

    def doubt(self, votes: Tensor) -> Tensor:
        """How far its number lies from the median vote, in units of the mean of these distances.

        A number does not tell how sure it is, but of several teachers the one that strays from all others is
        suspect. Of two, both are believed alike; where all agree, too.
        """
        numbers = votes.squeeze(2)
        distance = (numbers - torch.quantile(numbers, 0.5, dim=0)).abs()
        mean = distance.mean(dim=0)
        return torch.where(mean > 0, distance / mean.clamp(min=torch.finfo(mean.dtype).tiny), 0.0)

    @property
    def answer_names(self) -> tuple[str, ...]:
        return ()

    def from_answer(self, answers: Tensor) -> Tensor:
        return answers

    def label_text(self, label: float) -> str:
        return f"{label:.9g}"  # as many digits as a float32 needs to be read back the same

    def read_label(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError("a finite number")
        return number

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (self.predict(outputs).to(torch.float64) - labels.to(torch.float64)).abs()

    def bins(self, labels: Tensor) -> tuple[list[str], Tensor]:
        edges = [self.low + self.span * k / self.REPORT_BINS for k in range(self.REPORT_BINS + 1)]
        names = [f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges)]
        place = (self.to_target(labels) * self.REPORT_BINS).to(torch.int64)
        return names, place.clamp(0, self.REPORT_BINS - 1)

    def windows(self, labels: Tensor, count: int, half_width: float) -> tuple[list[str], Tensor]:
        centres = torch.linspace(half_width, 1.0 - half_width, count, dtype=torch.float64)
        targets = (labels.to(torch.float64) - self.low) / self.span
        places = max(0, 1 - math.floor(math.log10(self.span / count)))  # so many that no two names are alike
        names = [f"{self.low + self.span * float(centre):.{places}f}" for centre in centres]
        return names, (
            targets - centres[:, None]
        ).abs() <= half_width + 1e-6  # a float32 label at the edge is inside

    def bounded_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.error(outputs, targets)

    def check_labels(self, labels: Tensor, where: str) -> None:
        bad = ~torch.isfinite(labels) | (labels < self.low) | (labels > self.high)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise UserError(
                f"{where}: label {labels[row].item():g} at row {row} is outside the allowed range "
                f"{self.low:g} to {self.high:g}"
            )

    def to_json(self) -> dict[str, Any]:
        return {"type": self.name, "low": self.low, "high": self.high, "unit": self.unit}


def from_json(value: dict[str, Any]) -> Task:
    """The task that :meth:`Task.to_json` wrote."""
    fields = {name: item for name, item in value.items() if name != "type"}
    if value.get("type") == Classification.name:
        return Classification(class_names=tuple(fields["class_names"]))
    if value.get("type") == Regression.name:
        return Regression(**fields)
    raise UserError(f"task type {value.get('type')!r} is not known; allowed: classification, regression")
