"""The best answer without a look at the image, against numbers by hand."""

from __future__ import annotations

import pytest
import torch

from cgankd.tasks import CircularRegression, Classification, Regression


def test_the_most_frequent_class() -> None:
    task = Classification(("a", "b", "c"))
    assert task.constant(torch.tensor([0, 2, 2, 1, 2])) == 2
    assert task.constant_score(2, torch.tensor([2, 0, 2, 1])) == pytest.approx(50.0)


def test_the_median_of_a_scalar() -> None:
    task = Regression(0.0, 90.0)
    assert task.constant(torch.tensor([1.0, 3.0, 80.0])) == 3.0
    assert task.constant_score(3.0, torch.tensor([0.0, 9.0])) == pytest.approx(4.5, abs=1e-4)


def test_around_the_circle() -> None:
    task = CircularRegression(high=360.0)
    constant = task.constant(torch.tensor([350.0, 358.0, 4.0, 10.0, 359.0]))
    assert constant == pytest.approx(359.0, abs=1.0)
    assert task.constant_score(359.0, torch.tensor([349.0, 9.0])) == pytest.approx(10.0, abs=1e-3)
