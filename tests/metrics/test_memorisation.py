"""Planted copies are found, new images are not accused, and the chance is what simulation says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from cgankd.metrics.distances import nearest
from cgankd.metrics.memorisation import Nearness, closest, nearness


def drawn(count: int, seed: int) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def compared(fakes: Tensor, train: Tensor, held_out: Tensor) -> Nearness:
    distance, row = (found.squeeze(1) for found in nearest(fakes, train))
    return nearness(distance, row, nearest(held_out, train)[0].squeeze(1))


def test_numbers_equal_those_of_the_whole_matrix() -> None:
    train, held_out, fakes = drawn(80, 1), drawn(150, 2), drawn(60, 3)
    found = compared(fakes, train, held_out)
    real = np.sort(cdist(held_out, train).min(axis=1))
    distance = cdist(fakes, train).min(axis=1)
    assert found.row.numpy() == pytest.approx(cdist(fakes, train).argmin(axis=1))
    assert found.cutoff == pytest.approx(real[1])  # floor(.01 * 149) = 1: the second smallest
    assert found.expected == pytest.approx(2 / 151)
    assert found.share == (distance < real[1]).mean()
    assert found.typical == pytest.approx(real[74])  # torch's median is the lower of the two middle ones
    assert found.median_ratio == pytest.approx(np.sort(distance)[29] / real[74], rel=1e-5)


def test_planted_copies_are_found_and_new_images_are_not_accused() -> None:
    train, held_out, new = drawn(100, 1), drawn(60, 2), drawn(200, 3)
    clean = compared(new, train, held_out)
    assert clean.p_value > 0.05
    assert clean.median_ratio == pytest.approx(1.0, abs=0.1)
    planted = new.clone()
    planted[:40] = train[:40] + 0.01 * drawn(40, 4)
    copied = compared(planted, train, held_out)
    assert copied.share >= 0.2
    assert copied.p_value < 1e-3
    assert set(closest(copied, 40).tolist()) == set(range(40))
    assert copied.row[:40].tolist() == list(range(40))


def test_few_held_out_images_need_more_copies_to_accuse() -> None:
    train, new = drawn(100, 1), drawn(200, 3)
    planted = torch.cat([train[:6], new[6:]])
    few, many = (compared(planted, train, drawn(count, 7)) for count in (10, 1000))
    assert few.expected == pytest.approx(1 / 11)
    assert few.p_value > many.p_value
    assert many.expected == pytest.approx(10 / 1001)


def test_the_chance_is_that_of_a_simulation() -> None:
    train, held_out, fakes = drawn(50, 1), drawn(40, 2), drawn(30, 3)
    found = compared(fakes, train, held_out)
    rng = np.random.default_rng(0)
    ranks = rng.random((40_000, 70))  # held-out and fake distances are exchangeable under the hypothesis
    below = (ranks[:, 40:] < ranks[:, :40].min(axis=1)[:, None]).sum(axis=1)
    assert found.p_value == pytest.approx((below >= round(found.share * 30)).mean(), abs=0.01)
    assert below.mean() / 30 == pytest.approx(found.expected, abs=0.002)


def test_closest_names_no_training_image_twice() -> None:
    train = drawn(20, 1)
    fakes = torch.cat([train[:1] + 0.001, train[:1] + 0.002, train[5:6] + 0.003, drawn(5, 2)])
    found = compared(fakes, train, drawn(12, 3))
    assert closest(found, 2).tolist() == [0, 2]
    rows = found.row[closest(found, 8)].tolist()
    assert len(rows) == len(set(rows))


def test_pixels_are_taken_as_they_are() -> None:
    rng = torch.Generator().manual_seed(0)
    train, held_out = (torch.randint(0, 256, (n, 1, 16, 16), dtype=torch.uint8, generator=rng) for n in (30, 12))
    found = compared(train[3:15], train, held_out)
    assert found.row.tolist() == list(range(3, 15))
    assert float(found.distance.max()) == 0.0
    assert found.share == 1.0
