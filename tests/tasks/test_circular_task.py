"""Labels that wrap: every number of the task against angles by hand (atan2, and the nearest of three turns)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cgankd.core.errors import UserError
from cgankd.tasks import CircularRegression, Regression, from_json
from cgankd.tasks.axis import CIRCLE, LINE

DEGREES = CircularRegression(high=360.0, unit="degrees")
HOURS = CircularRegression(high=24.0, unit="hours")


def unit(*degrees: float, length: float = 1.0) -> torch.Tensor:
    return length * torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def nearest_turn(first: np.ndarray, second: np.ndarray, period: float) -> np.ndarray:
    """The distance on the circle, as the smallest over three turns."""
    return np.abs(first[:, None] - second[:, None] + period * np.array([-1.0, 0.0, 1.0])).min(axis=1)


def test_a_prediction_is_atan2_in_the_labels_unit_from_0_to_below_the_period() -> None:
    outputs = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    for task in (DEGREES, HOURS):
        cosine, sine = outputs.double().numpy().T
        right = np.degrees(np.arctan2(sine, cosine)) % 360.0 / 360.0 * task.span
        assert task.predict(outputs).numpy() == pytest.approx(right, abs=1e-5 * task.span)
    assert DEGREES.predict(unit(0, 90, 180, 270, 359.5)).tolist() == pytest.approx([0, 90, 180, 270, 359.5], abs=1e-4)
    below = DEGREES.predict(torch.tensor([[1.0, -1e-9], [1.0, -1e-30], [1.0, -0.0], [1e-20, -1e-29]]))
    assert below.tolist() == [0.0, 0.0, 0.0, 0.0]  # never 360
    assert DEGREES.deployed(unit(200.0, length=7.0)).tolist() == pytest.approx([200.0])  # the length does not count


def test_errors_scores_and_differences_go_the_shorter_way() -> None:
    rng = np.random.default_rng(1)
    predicted, labels = rng.uniform(0, 360, (2, 200))
    right = nearest_turn(predicted, labels, 360.0)
    assert right.max() > 150
    outputs = unit(*predicted.tolist())
    given = torch.from_numpy(labels)
    assert DEGREES.score(outputs, given).numpy() == pytest.approx(right, abs=1e-3)
    assert DEGREES.error(outputs, DEGREES.to_target(given)).numpy() == pytest.approx(right / 360.0, abs=1e-5)
    assert DEGREES.bounded_loss(outputs, DEGREES.to_target(given)).max() <= 0.5
    assert DEGREES.difference(torch.tensor([359.0, 1.0]), torch.tensor([1.0, 359.0])).tolist() == pytest.approx([-2, 2])
    assert Regression(0.0, 360.0).score(torch.tensor([[359 / 360]]), torch.tensor([1.0])).item() == pytest.approx(358)


def test_the_loss_of_a_small_error_is_that_of_a_scalar() -> None:
    targets = torch.tensor([0.0, 0.3, 0.999])
    shifted = CIRCLE.coordinates(targets + 0.004)
    assert float(DEGREES.loss(shifted, targets)) == pytest.approx(0.004**2, rel=1e-3)
    assert DEGREES.loss(unit(90.0), torch.tensor([0.75])).item() == pytest.approx((2 / (2 * math.pi)) ** 2)
    each = DEGREES.loss(shifted, targets, reduction="none")
    assert each.shape == (3,)
    points = DEGREES.right_answer(targets)
    assert torch.allclose(DEGREES.loss(shifted, points, reduction="none"), each)
    teacher = CIRCLE.coordinates(targets)
    assert float(DEGREES.imitation_loss(shifted, teacher, 1.0)) == pytest.approx(float(each.mean()))


def test_targets_of_any_turn_are_shares_of_one() -> None:
    labels = torch.tensor([0.0, 359.0, 360.0, 725.0, -90.0, -1e-12, -1e-6], dtype=torch.float64)
    targets = DEGREES.to_target(labels)
    assert targets.tolist() == pytest.approx([0, 359 / 360, 0, 5 / 360, 0.75, 0, 0], abs=1e-6)
    assert ((targets >= 0) & (targets < 1)).all()
    assert DEGREES.from_target(torch.tensor([0.25, 1.0])).tolist() == [90.0, 0.0]
    assert torch.allclose(DEGREES.from_answer(DEGREES.answer(unit(30.0))), unit(30.0))
    assert DEGREES.predict(DEGREES.from_deployed(torch.tensor([77.0, 359.0]))).tolist() == pytest.approx([77, 359])


def test_the_slope_of_what_an_image_explains_is_that_of_the_angle() -> None:
    targets = torch.tensor([0.1, 0.9])
    outputs = CIRCLE.coordinates(targets).requires_grad_()
    DEGREES.explained(outputs, targets).sum().backward()
    angles = CIRCLE.coordinates(targets).requires_grad_()
    (torch.atan2(angles[:, 1], angles[:, 0]) / (2 * math.pi)).sum().backward()
    assert torch.allclose(outputs.grad, angles.grad, atol=1e-6)


def test_windows_and_bins_close_the_circle() -> None:
    labels = torch.tensor([1.0, 90.0, 180.0, 355.0])
    names, members = DEGREES.windows(labels, 4, 0.05)
    assert names == ["0", "90", "180", "270"]
    assert members.int().tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    bins, place = DEGREES.bins(torch.tensor([0.0, 359.0, 360.0, -1.0]))
    assert bins[0] == "0 to 36"
    assert place.tolist() == [0, 9, 0, 9]


def test_several_teachers_agree_on_the_circle() -> None:
    votes = torch.stack([unit(350.0), unit(10.0), unit(180.0)])
    pair = DEGREES.predict(DEGREES.consensus(votes[:2]))
    assert DEGREES.difference(pair, torch.zeros(1)).item() == pytest.approx(0.0, abs=1e-4)  # not 180
    assert DEGREES.doubt(votes)[:, 0].argmax() == 2
    assert DEGREES.doubt(votes[:2])[:, 0].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    assert DEGREES.doubt(votes[[0, 0, 0]])[:, 0].tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_teacher_that_swaps_its_outputs_is_refused() -> None:
    labels = torch.linspace(0, 80, 50)
    right = unit(*labels.tolist())
    assert DEGREES.kind_of(right, labels, trained=True) == "cosine_sine"
    with pytest.raises(ValueError, match="the cosine first, then the sine"):
        DEGREES.kind_of(-right, labels, trained=True)
    assert DEGREES.kind_of(-right, labels, trained=False) == "cosine_sine"
    in_degrees = DEGREES.from_kind(torch.tensor([[90.0]]), "label_unit")
    assert in_degrees.tolist() == [pytest.approx([0.0, 1.0], abs=1e-6)]


@pytest.mark.parametrize("period", [0.0, -1.0, math.inf, math.nan])
def test_a_period_must_be_a_length(period: float) -> None:
    with pytest.raises(UserError, match="allowed: from 0 to a period"):
        CircularRegression(high=period)


def test_json_round_trip_and_the_line_is_as_it_was() -> None:
    assert from_json(HOURS.to_json()) == HOURS
    assert HOURS.deployed_facts == {
        "shape": ["batch"], "is": "label", "unit": "hours", "range": [0.0, 24.0], "wraps": True,
    }  # fmt: skip
    assert Regression(0.0, 90.0, "degrees").content_key == "20a837df5c81fdc2"
    with pytest.raises(UserError, match="row 1 is not a finite number"):
        HOURS.check_labels(torch.tensor([1.0, math.nan]), "labels")


def test_spread_is_the_standard_deviation_on_a_short_arc_and_of_a_uniform_circle() -> None:
    arc = torch.tensor([0.1, 0.12, 0.15, 0.2])
    assert CIRCLE.spread(arc) == pytest.approx(LINE.spread(arc), rel=0.01)
    assert CIRCLE.spread(CIRCLE.wrap(arc - 0.15)) == pytest.approx(CIRCLE.spread(arc), rel=1e-5)  # across 0
    assert CIRCLE.spread(torch.arange(1000) / 1000) == pytest.approx(1 / math.sqrt(12), rel=0.01)
