"""Regression: one real number for each image."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.core.numbers import distinct_texts, number
from cgankd.tasks.axis import LINE
from cgankd.tasks.base import Task


def fits_float32(low: float, high: float) -> bool:
    """Whether float32 is precise enough for labels: steps of at most a millionth of the range, everywhere in it.

    >>> fits_float32(0.0, 90.0), fits_float32(1.7e9, 1.7e9 + 1600.0)
    (True, False)
    """
    return float(np.spacing(np.float32(max(abs(low), abs(high))))) <= 1e-6 * (high - low)


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """One real number per image, of any range and sign.

    low, high: the range that is mapped to [0, 1], in the label's ``unit``. Targets are float32. Labels are float32 if
    that is precise enough for the range, else float64 (:func:`fits_float32`).
    """

    low: float
    high: float
    unit: str = ""

    name = "regression"
    kind: ClassVar[str] = "regression"  # in JSON
    metric = "mae"
    higher_is_better = False
    geometry_safe = False  # the scalar may be an angle, a count or a position, which would change
    mixable = False  # a mix of images with two angles has no angle
    continuous = True
    label_noun = "label"
    error_words = "absolute error, as a share of the label range"
    axis = LINE
    has_temperature = False
    filter_quantile = 0.7
    replace_labels = "hard"
    label_weight = 0.5
    teacher_weight = 0.5
    clip_norm = 1.0
    guidance_scale = 100.0  # squared errors in tenths of the range
    deployed_name = "label"
    bin_name = "label range"
    window_names = ("label window", "label windows")
    window_score = "SFID"
    bounded_loss_name = "the absolute error as a share of the label range"
    output_kinds: ClassVar[tuple[str, ...]] = ("scaled", "label_unit")
    converted_kinds: ClassVar[Mapping[str, str]] = {"label_unit": "they are mapped to [0, 1] by the label range"}

    REPORT_BINS: ClassVar[int] = 10
    COARSE: ClassVar[float] = 1e-3  # of the range: the largest steps that outputs in the label's unit may have
    FLAT: ClassVar[float] = 0.05  # outputs whose range is below this share of the labels' range are suspect

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError(
                f"the label range is {self.low:g} to {self.high:g}; the low end must be finite and below the high "
                "end (labels that are all equal can't be learnt)"
            )

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def metric_unit(self) -> str:
        return self.unit

    @property
    def label_unit(self) -> str:
        return self.unit

    @property
    def answer_words(self) -> str:
        return f"a number in {self.unit}" if self.unit else "a number"

    @property
    def label_dtype(self) -> torch.dtype:
        return torch.float32 if fits_float32(self.low, self.high) else torch.float64

    @property
    def span(self) -> float:
        """The width of the range in the label's unit."""
        return self.high - self.low

    def to_target(self, labels: Tensor) -> Tensor:
        return ((labels.to(torch.float64) - self.low) / self.span).to(torch.float32)

    def from_target(self, targets: Tensor) -> Tensor:
        return (targets.to(torch.float64) * self.span + self.low).to(self.label_dtype)

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
        """-1 for every image, because a scalar has no other predictions to compare with."""
        return torch.full_like(targets, -1.0)

    def uncertainty(self, outputs: Tensor) -> Tensor:
        """1/2 for every image, because a scalar has no measure of confidence."""
        return torch.full_like(outputs[:, 0], 0.5)

    def explained(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The scalar itself, because the gradient of a squared error is 0 if the scalar is right."""
        return outputs.squeeze(1)

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze(1).clamp(0.0, 1.0) - targets).abs()

    @property
    def error_name(self) -> str:
        return "|prediction − label|" + (f", {self.unit}" if self.unit else "")

    @property
    def error_scale(self) -> float:
        return self.span

    def predict(self, outputs: Tensor) -> Tensor:
        return self.from_target(outputs.squeeze(1).clamp(0.0, 1.0))

    def deployed(self, outputs: Tensor) -> Tensor:
        """Labels in the user's unit, float32 or float64 [B]."""
        return self.predict(outputs)

    def from_deployed(self, values: Tensor) -> Tensor:
        return self.to_target(values)[:, None]

    @property
    def deployed_facts(self) -> dict[str, Any]:
        ends = [self._short(self.low), self._short(self.high)]
        return {"shape": ["batch"], "is": "label", "unit": self.unit, "range": ends}

    def consensus(self, votes: Tensor, weights: Tensor | None = None) -> Tensor:
        return votes.mean(dim=0) if weights is None else (votes * weights[:, :, None]).sum(dim=0)

    def doubt(self, votes: Tensor) -> Tensor:
        """The distance of each vote from the median vote, divided by the mean of these distances.

        A scalar has no measure of confidence, but a teacher that is far from all others is suspect. With two teachers,
        and if all agree, the doubt is the same for all.
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

    def kind_of(self, outputs: Tensor, labels: Tensor, *, trained: bool) -> str:
        error, in_unit = self._error_as(outputs, labels, "scaled"), self._error_as(outputs, labels, "label_unit")
        if trained and _suspect(error, in_unit):
            raise ValueError(
                f"its outputs for training images go from {float(outputs.min()):.4g} to {float(outputs.max()):.4g} and "
                f"miss the labels, mapped to [0, 1], by {error:.3g} on average; allowed: outputs in [0, 1], or a "
                f"setting: outputs=label_unit if they are in the label's unit ({self._ends()}), outputs=scaled to use "
                "them without conversion"
            )
        return "scaled"

    def check_kind(self, outputs: Tensor, kind: str) -> None:
        """Raises ValueError for outputs of 32 bits in the label's unit where their steps are coarse beside the range:
        they can't be a label such as 1700000020."""
        if not torch.equal(outputs, outputs.float().to(outputs.dtype)):
            return
        step = float(np.spacing(np.float32(max(abs(self.low), abs(self.high)))))
        if kind == "label_unit" and step > self.COARSE * self.span:
            raise ValueError(
                f"its outputs are numbers of 32 bits, which go in steps of {step:g} in the label range {self._ends()}; "
                "allowed: numbers of 64 bits, outputs=scaled with outputs mapped to [0, 1], or labels with an offset "
                "subtracted"
            )

    def misfit(self, outputs: Tensor, labels: Tensor, kind: str) -> str:
        other = "scaled" if kind == "label_unit" else "label_unit"
        error, otherwise = self._error_as(outputs, labels, kind), self._error_as(outputs, labels, other)
        ends = [self.from_kind(outputs, kind), self.to_target(labels)]
        spread, wanted = (float(values.max() - values.min()) for values in ends)
        if not _suspect(error, otherwise) and spread >= self.FLAT * wanted:
            return ""
        numbers = [f"{float(end):.4g}" for values in (outputs, labels) for end in (values.min(), values.max())]
        return (
            f"its outputs go from {numbers[0]} to {numbers[1]} for images whose labels go from {numbers[2]} to "
            f"{numbers[3]} {self.unit}".rstrip()
            + f"; taken as {kind} they miss the labels by {100 * error:.3g} % of the label range on average, taken as "
            f"{other} by {100 * otherwise:.3g} %"
        )

    def _error_as(self, outputs: Tensor, labels: Tensor, kind: str) -> float:
        """The mean error on the labels of outputs of this kind, as a share of the label range."""
        return float((self.from_kind(outputs, kind).squeeze(1) - self.to_target(labels)).abs().mean())

    def from_kind(self, outputs: Tensor, kind: str) -> Tensor:
        return (outputs - self.low) / self.span if kind == "label_unit" else outputs

    def _ends(self) -> str:
        return f"{' to '.join(distinct_texts([self.low, self.high]))} {self.unit}".strip()

    def label_text(self, label: float) -> str:
        digits = 9 if self.label_dtype == torch.float32 else 17  # enough digits to read the same value back
        return f"{label:.{digits}g}"

    def short_text(self, label: float) -> str:
        """The step of the last digit is at most a hundredth of the range.

        >>> Regression(0.0, 90.0).short_text(-7.26), Regression(0.0, 0.5).short_text(0.123456)
        ('−7.3', '0.123')
        """
        places = max(0, math.ceil(math.log10(100.0 / self.span)))
        text = f"{round(float(label), places) + 0.0:.{places}f}"
        return text.replace("-", "−")

    def prediction_text(self, prediction: float, label: float, probability: float) -> str:
        error = abs(
            float(
                self.difference(torch.tensor(prediction, dtype=torch.float64), torch.tensor(label, dtype=torch.float64))
            )
        )
        return f"{self.short_text(prediction)} (error {self.short_text(error)})"

    def read_label(self, text: str) -> float:
        value = number(text)
        if value is None or not math.isfinite(value):
            raise ValueError("a finite number")
        return value

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.difference(self.predict(outputs), labels).abs()

    def confusion(self, labels: Tensor, predictions: Tensor) -> None:
        """None, because a scalar has no classes."""

    def constant(self, labels: Tensor) -> float:
        """The median, which has the smallest mean absolute error."""
        return float(labels.double().quantile(0.5))

    def bins(self, labels: Tensor) -> tuple[list[str], Tensor]:
        edges = [self.low + self.span * k / self.REPORT_BINS for k in range(self.REPORT_BINS + 1)]
        names = [f"{a} to {b}" for a, b in itertools.pairwise(distinct_texts(self._rounded(edges)))]
        bins = (self.to_target(labels) * self.REPORT_BINS).to(torch.int64)
        return names, bins.clamp(0, self.REPORT_BINS - 1)

    def _rounded(self, edges: Sequence[float]) -> list[float]:
        """The edges of the bins, to a hundredth of a bin or so; 0, not -1e-6, where that is meant."""
        places = 2 - math.floor(math.log10(self.span / self.REPORT_BINS))
        rounded = [round(edge, places) + 0.0 for edge in edges]
        return rounded if len(set(rounded)) == len(edges) else list(edges)

    def windows(self, labels: Tensor, count: int, half_width: float) -> tuple[list[str], Tensor]:
        centres = torch.linspace(half_width, 1.0 - half_width, count, dtype=torch.float64)
        targets = (labels.to(torch.float64) - self.low) / self.span
        places = max(0, 1 - math.floor(math.log10(self.span / count)))  # enough decimals for distinct names
        names = [f"{self.low + self.span * float(centre):.{places}f}" for centre in centres]
        return names, (targets - centres[:, None]).abs() <= half_width + 1e-6  # a float32 label at the edge is inside

    def bounded_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.error(outputs, targets)

    def check_labels(self, labels: Tensor, where: str) -> None:
        bad = ~torch.isfinite(labels) | (labels < self.low) | (labels > self.high)
        if bad.any():
            row = int(bad.nonzero()[0])
            label, low, high = distinct_texts([labels[row].item(), self.low, self.high])
            at = f" at row {row}" if len(labels) > 1 else ""  # a label that a user typed is in no row
            raise UserError(f"{where}: label {label}{at} is outside the allowed range {low} to {high}")

    def check_test_labels(self, labels: Tensor, where: str) -> None:
        """Does nothing, because any number can be compared."""

    def to_json(self) -> dict[str, Any]:
        return {"type": self.kind, "low": self.low, "high": self.high, "unit": self.unit}

    def described(self) -> dict[str, Any]:
        """Labels are float32, so 1.7000000476837158 is a label 1.7; the ends of the range differ by less than a label's
        last bit.

        >>> Regression(1.7000000476837158, 55.0).described()
        {'type': 'regression', 'low': 1.7, 'high': 55.0, 'unit': ''}
        """
        return {name: self._short(end) if isinstance(end, float) else end for name, end in self.to_json().items()}

    def _short(self, end: float) -> float:
        """The number with the fewest digits that is this label; whole numbers stay as they are."""
        single = np.float32(end) if self.label_dtype == torch.float32 else end
        return end if end.is_integer() or float(single) != end else float(str(single))


def _suspect(error: float, otherwise: float) -> bool:
    """Whether outputs of a trained teacher, with this mean error, are hardly of the kind that they are taken for.

    otherwise: their error if they are taken for the other kind. Above 0.5 they are worse than 0.5 for all images.
    """
    return error > 0.5 or error > 4.0 * otherwise
