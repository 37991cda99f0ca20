"""Regression of a label that wraps: an angle, the hour of a day, a direction. Networks answer a cosine and a sine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.core.numbers import distinct_texts
from cgankd.tasks.axis import CIRCLE
from cgankd.tasks.regression import Regression

TURN = 2.0 * math.pi


@dataclasses.dataclass(frozen=True)
class CircularRegression(Regression):
    """One real number per image, of which ``high`` (the period) and 0 are the same.

    Targets are the share of a turn, float32 in [0, 1). Outputs are [B, 2], cosine and sine; their length has no effect
    on the prediction. Losses compare points on a circle of circumference 1, so that the loss of a small error is that
    of :class:`Regression` with the same range.
    """

    low: float = 0.0
    high: float = 360.0
    unit: str = ""

    kind = "circular"
    axis = CIRCLE
    bounded_loss_name = "the distance on the circle as a share of the period"
    output_kinds = ("cosine_sine",)
    converted_kinds: ClassVar[Mapping[str, str]] = {}

    FAR: ClassVar[float] = 0.2  # of a turn: a mean error above it is suspect
    LONG: ClassVar[float] = 2.0  # outputs that are longer on average are no cosines and sines

    def __post_init__(self) -> None:
        if self.low != 0.0 or not 0.0 < self.high < math.inf:
            raise UserError(f"a label that wraps goes from {self.low:g} to {self.high:g}; allowed: from 0 to a period")

    @property
    def num_outputs(self) -> int:
        return 2

    def constant(self, labels: Tensor) -> float:
        """The label of a fine grid with the smallest mean distance around the circle."""
        grid = torch.linspace(0.0, self.high, 361, dtype=torch.float64)[:-1]
        return float(min(grid, key=lambda label: float(self.difference(labels.double(), label).abs().mean())))

    def to_target(self, labels: Tensor) -> Tensor:
        return CIRCLE.wrap((labels.to(torch.float64) / self.span).remainder(1.0).to(torch.float32))

    def from_target(self, targets: Tensor) -> Tensor:
        labels = (targets.to(torch.float64) * self.span).to(self.label_dtype)
        return torch.where(labels < self.span, labels, 0.0)  # rounding gives the period itself

    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """The squared distance; targets [B], or points in the form of :meth:`answer`, [B, 2]."""
        right = targets if targets.ndim == 2 else self.right_answer(targets)
        return _reduced((self.answer(outputs) - right).square().sum(dim=1), reduction)

    def attack_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The distance on the circle, because the loss also rises with the length of outputs, which misleads no
        prediction."""
        return self.error(outputs, targets)

    def imitation_loss(
        self, outputs: Tensor, teacher_outputs: Tensor, temperature: float, reduction: str = "mean"
    ) -> Tensor:
        """Squared distance to the teacher's point; a label that wraps has no temperature."""
        distance = (self.answer(outputs) - self.answer(teacher_outputs)).square().sum(dim=1)
        return _reduced(distance, reduction)

    def answer(self, outputs: Tensor) -> Tensor:
        """Points on a circle of circumference 1."""
        return outputs / TURN

    def right_answer(self, targets: Tensor) -> Tensor:
        return CIRCLE.coordinates(targets) / TURN

    def from_answer(self, answers: Tensor) -> Tensor:
        return answers * TURN

    def explained(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How far the output is ahead of the target, along the circle's tangent there, as a share of the period."""
        cosine, sine = CIRCLE.coordinates(targets).unbind(dim=1)
        return (outputs[:, 1] * cosine - outputs[:, 0] * sine) / TURN

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return CIRCLE.distance(_share(outputs), targets)

    def predict(self, outputs: Tensor) -> Tensor:
        """Labels in [0, period), [B]."""
        return self.from_target(CIRCLE.wrap(_share(outputs)))

    def from_deployed(self, values: Tensor) -> Tensor:
        return CIRCLE.coordinates(self.to_target(values))

    @property
    def deployed_facts(self) -> dict[str, Any]:
        return {**super().deployed_facts, "wraps": True}

    def difference(self, deployed: Tensor, others: Tensor) -> Tensor:
        """The shorter way around, in the label's unit."""
        turns = CIRCLE.shortest(deployed.to(torch.float64) / self.span, others.to(torch.float64) / self.span)
        return turns * self.span

    def doubt(self, votes: Tensor) -> Tensor:
        """As for a scalar; the median vote is the direction of the median cosine and sine."""
        directions = torch.nn.functional.normalize(votes, dim=2)
        middle = torch.quantile(directions, 0.5, dim=0)
        distance = CIRCLE.distance(_share(votes), _share(middle))
        mean = distance.mean(dim=0)
        return torch.where(mean > 0, distance / mean.clamp(min=torch.finfo(mean.dtype).tiny), 0.0)

    def kind_of(self, outputs: Tensor, labels: Tensor, *, trained: bool) -> str:
        error = float(self.error(outputs, self.to_target(labels)).mean())
        if trained and error > 0.3:  # 1/4 where outputs have nothing to do with labels
            period = f"{self.span:g} {self.unit}".strip()
            raise ValueError(
                f"its two outputs, read as cosine and sine of 2 pi label / ({period}), miss the labels of training "
                f"images by {error:.2f} of a turn on average; allowed: the cosine first, then the sine, or a setting: "
                "outputs=cosine_sine to use them all the same"
            )
        return "cosine_sine"

    def misfit(self, outputs: Tensor, labels: Tensor, kind: str) -> str:
        error = float(self.error(outputs, self.to_target(labels)).mean())
        length = float(torch.linalg.vector_norm(outputs, dim=1).mean())
        if error <= self.FAR and length > self.LONG:
            return (
                f"its cosine and sine have a length of {length:.3g} on average, in place of 1; this changes no "
                "prediction, but losses compare points (kd, fm, tbr, ckd, cckd-target), and it outvotes other "
                "teachers; needed: outputs divided by their length"
            )
        if error <= self.FAR:
            return ""
        return (
            f"its cosine and sine miss the labels of images by {error:.2f} of a turn on average, and outputs that have "
            "nothing to do with the labels by 0.25; are they the cosine first, then the sine, and does it take pixels "
            "in [0, 1]?"
        )

    def from_kind(self, outputs: Tensor, kind: str) -> Tensor:
        """Outputs as they are; for ``label_unit`` [B, 1] -> [B, 2]."""
        return self.from_deployed(outputs[:, 0]) if kind == "label_unit" else outputs

    def windows(self, labels: Tensor, count: int, half_width: float) -> tuple[list[str], Tensor]:
        centres = CIRCLE.grid(count).double()
        targets = self.to_target(labels).to(torch.float64)
        names = distinct_texts([self.span * float(centre) for centre in centres])
        return names, CIRCLE.distance(targets, centres[:, None]) <= half_width + 1e-6

    def check_labels(self, labels: Tensor, where: str) -> None:
        bad = ~torch.isfinite(labels)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise UserError(f"{where}: label {labels[row].item():g} at row {row} is not a finite number")


def _share(outputs: Tensor) -> Tensor:
    """The direction of outputs [..., 2] as a share of a turn, in [-1/2, 1/2]."""
    return torch.atan2(outputs[..., 1], outputs[..., 0]) / TURN


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses if reduction == "none" else losses.mean()
