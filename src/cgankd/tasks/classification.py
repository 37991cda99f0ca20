"""Classification: one class for each image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.core.errors import UserError, first_of
from cgankd.core.terminal import on_one_line
from cgankd.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One class index per image, int64 in [0, number of classes)."""

    class_names: tuple[str, ...]

    name = "classification"
    metric = "accuracy"
    higher_is_better = True
    geometry_safe = True
    mixable = True
    continuous = False
    label_noun = "class"
    error_words = "cross-entropy"
    has_temperature = True
    filter_quantile = 0.9
    replace_labels = "none"
    label_weight = 0.1
    teacher_weight = 0.9
    clip_norm = None
    guidance_scale = 1.0
    deployed_name = "logits"
    bin_name = "class"
    window_names = ("class", "classes")
    window_score = "Intra-FID"
    bounded_loss_name = "the share of wrong predictions"
    output_kinds = ("logits", "probabilities", "log_probabilities")
    converted_kinds = {  # noqa: RUF012
        "probabilities": "none is below 0 and each row adds up to 1, so their logarithms are used as logits"
    }

    LEAST: ClassVar[float] = 1e-12  # replaces a probability of 0
    ROUNDING: ClassVar[float] = 0.01  # allowed deviation of the sum of probabilities from 1
    # How much a good teacher's sigmoid of the true class exceeds the mean of the others.
    FAR_ABOVE: ClassVar[float] = 0.4
    ENOUGH: ClassVar[int] = 20  # labelled images that show whether a teacher is better than guessing
    TEMPERATURES: ClassVar[tuple[float, float]] = (0.2, 8.0)  # to calibrate outputs; no lower one where all are right
    HALVINGS: ClassVar[int] = 30  # of their range

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise UserError(f"found {len(self.class_names)} distinct label(s); at least two are needed")
        for name in self.class_names:
            if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
                raise UserError(
                    f"class '{on_one_line(name)}' has a name with bytes that are not UTF-8, which can't be written to "
                    "files of results; allowed: a folder or label of another name"
                )

    @property
    def num_outputs(self) -> int:
        return len(self.class_names)

    @property
    def metric_unit(self) -> str:
        return "%"

    @property
    def label_unit(self) -> str:
        return ""

    @property
    def answer_words(self) -> str:
        return f"one of {self.num_outputs:,} classes"

    @property
    def label_dtype(self) -> torch.dtype:
        return torch.int64

    def to_target(self, labels: Tensor) -> Tensor:
        return labels.to(torch.int64)

    def from_target(self, targets: Tensor) -> Tensor:
        return targets.to(torch.int64)

    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(outputs, targets, reduction=reduction)

    def calibrated_loss(self, outputs: Tensor, targets: Tensor) -> float:
        """Cross-entropy of outputs / T, with the T in TEMPERATURES that suits these images best (Guo et al., arXiv
        1706.04599)."""
        # of 1 / T, in which the loss is convex
        low, high = sorted(-math.log(temperature) for temperature in self.TEMPERATURES)
        right = outputs.gather(1, targets[:, None]).mean()
        for _ in range(self.HALVINGS):
            middle = (low + high) / 2.0
            expected = (F.softmax(math.exp(middle) * outputs, dim=1) * outputs).sum(dim=1).mean()
            low, high = (low, middle) if expected > right else (middle, high)
        return float(F.cross_entropy(math.exp((low + high) / 2.0) * outputs, targets))

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
        """One-hot; targets that are probabilities [B, classes] don't change."""
        return targets if targets.ndim == 2 else F.one_hot(targets, self.num_outputs).float()

    def agreement(self, outputs: Tensor, targets: Tensor, scale: float) -> Tensor:
        """The target's probability; ``scale`` is not used."""
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

    @property
    def error_name(self) -> str:
        return "cross-entropy, nats"

    @property
    def error_scale(self) -> float:
        return 1.0

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(dim=1)

    def deployed(self, outputs: Tensor) -> Tensor:
        """Logits [B, classes], as they are."""
        return outputs

    def from_deployed(self, values: Tensor) -> Tensor:
        return values

    @property
    def deployed_facts(self) -> dict[str, Any]:
        return {"shape": ["batch", self.num_outputs], "is": "logits", "classes": list(self.class_names)}

    def consensus(self, votes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Logits of the mean probabilities; a single network's logits don't change."""
        if len(votes) == 1:
            return votes[0]
        logits = F.log_softmax(votes, dim=2)
        if weights is not None:
            return torch.logsumexp(logits + weights.log()[:, :, None], dim=0)
        return torch.logsumexp(logits, dim=0) - math.log(len(votes))

    def doubt(self, votes: Tensor) -> Tensor:
        """The entropy of the class probabilities, in nats."""
        return torch.special.entr(torch.softmax(votes, dim=2)).sum(dim=2)

    @property
    def answer_names(self) -> tuple[str, ...]:
        return self.class_names

    def from_answer(self, answers: Tensor) -> Tensor:
        """Log-probabilities; a probability of 0 counts as ``LEAST``, so that every error is finite."""
        return answers.clamp(min=self.LEAST).log()

    def kind_of(self, outputs: Tensor, labels: Tensor, *, trained: bool) -> str:
        if self._are_probabilities(outputs):
            return "probabilities"
        if self._are_probabilities(outputs.exp()):
            return "log_probabilities"
        if trained and self._are_probabilities(outputs / 100.0):
            raise ValueError(
                "its outputs add up to 100 for each image, as percentages do; needed: logits, or probabilities"
            )
        if trained and self._are_sigmoids(outputs, labels):
            raise ValueError(
                "its outputs all lie in [0, 1] but don't add up to 1, as with sigmoids; needed: logits, or the setting "
                "outputs=logits if they are logits"
            )
        return "logits"

    def check_kind(self, outputs: Tensor, kind: str) -> None:
        numbers = outputs.exp() if kind == "log_probabilities" else outputs
        if kind != "logits" and not self._are_probabilities(numbers):
            raise ValueError(
                f"its outputs for training images are no {kind.replace('_', ' ')}: the smallest is "
                f"{float(outputs.min()):.4g}, and rows add up to {float(numbers.sum(1).min()):.4g} to "
                f"{float(numbers.sum(1).max()):.4g}"
            )

    def misfit(self, outputs: Tensor, labels: Tensor, kind: str) -> str:
        right, count, chance = int((outputs.argmax(1) == labels).sum()), len(labels), 1.0 / self.num_outputs
        by_chance = count * chance
        if count < self.ENOUGH or right > by_chance + 2.0 * math.sqrt(by_chance * (1.0 - chance)):
            return ""
        few = ", ".join(self.class_names[:3]) + (", ..." if self.num_outputs > 3 else "")
        return (
            f"it is right for {right} of {count} labelled images, guessing for {by_chance:.3g}; is the order of its "
            f"outputs that of the data's {self.num_outputs} classes ({few}), and does it take pixels in [0, 1]?"
        )

    def _are_probabilities(self, outputs: Tensor) -> bool:
        sums = outputs.sum(dim=1)
        return bool((outputs >= -(self.ROUNDING**2)).all() and ((sums - 1.0).abs() <= self.ROUNDING).all())

    def _are_sigmoids(self, outputs: Tensor, labels: Tensor) -> bool:
        """Whether all lie in [0, 1], and those of the true classes far above the others, which is rare for logits."""
        inside = float(outputs.min()) >= 0.0 and float(outputs.max()) <= 1.0
        true = outputs.gather(1, labels[:, None]).squeeze(1)
        others = (outputs.sum(dim=1) - true) / (self.num_outputs - 1)
        return inside and float((true - others).mean()) > self.FAR_ABOVE

    def from_kind(self, outputs: Tensor, kind: str) -> Tensor:
        """Log-probabilities are used as logits directly."""
        return self.from_answer(outputs) if kind == "probabilities" else outputs

    def label_text(self, label: float) -> str:
        return self.class_names[int(label)]

    def short_text(self, label: float) -> str:
        number = int(label)
        return self.class_names[number] if 0 <= number < self.num_outputs else str(number)

    def prediction_text(self, prediction: float, label: float, probability: float) -> str:
        return f"{self.short_text(prediction)} ({100.0 * probability:.0f} %)"

    def read_label(self, text: str) -> float:
        if text not in self.class_names:
            raise ValueError(f"one of {first_of(self.class_names)}")
        return self.class_names.index(text)

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (self.predict(outputs) == labels).to(torch.float64) * 100.0

    def confusion(self, labels: Tensor, predictions: Tensor) -> Tensor:
        pairs = labels.to(torch.int64) * self.num_outputs + predictions.to(torch.int64)
        return torch.bincount(pairs, minlength=self.num_outputs**2).reshape(self.num_outputs, self.num_outputs)

    def constant(self, labels: Tensor) -> float:
        """The most frequent class."""
        return float(torch.bincount(labels.long()).argmax())

    def bins(self, labels: Tensor) -> tuple[list[str], Tensor]:
        return list(self.class_names), labels.to(torch.int64)

    def windows(self, labels: Tensor, count: int, half_width: float) -> tuple[list[str], Tensor]:
        return list(self.class_names), labels == torch.arange(self.num_outputs)[:, None]

    def bounded_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self.predict(outputs) != targets).float()

    def renumbered(self, labels: Tensor, names: Sequence[str], where: str) -> Tensor:
        """Classes are matched by name; where the names are whole numbers, and not those of classes, by number."""
        known = self.class_names
        by_number = {str(number): name for number, name in enumerate(known)}  # not -1, which often means no label
        if not set(names) <= set(known) and set(names) <= set(by_number):
            names = tuple(by_number[name] for name in names)
        for unknown in (name for name in names if name not in known):
            raise UserError(f"{where}: class {unknown!r} is not one of the run's: {first_of(known)}")
        for missing in (name for name in known if name not in names):
            raise UserError(f"{where}: has no image of class {missing!r}; every class of the run needs some")
        return torch.tensor([known.index(name) for name in names])[labels]

    def check_labels(self, labels: Tensor, where: str) -> None:
        bad = (labels < 0) | (labels >= self.num_outputs)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise UserError(
                f"{where}: label {labels[row].item()} at row {row} is not a class; allowed: 0 to {self.num_outputs - 1}"
            )

    def check_test_labels(self, labels: Tensor, where: str) -> None:
        self.check_labels(labels, where)

    def to_json(self) -> dict[str, Any]:
        return {"type": self.name, "class_names": list(self.class_names)}
