"""The filter's thresholds against numpy, and replaced labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cgankd.data.imageset import ImageSet
from cgankd.synthesis import adjust


def errors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) ** 2


@pytest.mark.parametrize("rho", [0.1, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("groups", [1, 4])
def test_thresholds_are_quantiles_of_each_group(rho: float, groups: int) -> None:
    found, group = errors(1001), torch.arange(1001) % groups
    found = found * (1 + group)  # each class on its own scale
    alpha = adjust.thresholds(found, group, groups, rho)
    expected = [np.quantile(found[group == number].double().numpy(), rho) for number in range(groups)]
    assert alpha.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rho", [0.7, 0.9])
def test_the_share_that_is_kept_is_rho(rho: float) -> None:
    found, group = errors(10_000), torch.zeros(10_000, dtype=torch.int64)
    kept = adjust.keep(found, adjust.thresholds(found, group, 1, rho)[group])
    assert abs(int(kept.sum()) - rho * 10_000) <= 1


def test_strictly_below() -> None:
    found = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    group = torch.zeros(5, dtype=torch.int64)
    alpha = adjust.thresholds(found, group, 1, 0.5)  # the median is one of the errors
    assert alpha.tolist() == [0.5]
    assert adjust.keep(found, alpha[group]).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("value", [0.0, 0.3, 7.5])
def test_where_all_errors_are_equal_all_are_kept(value: float) -> None:
    found = torch.cat([torch.full((50,), value), errors(50)])
    group = torch.arange(2).repeat_interleave(50)
    alpha = adjust.thresholds(found, group, 2, 0.9)
    assert adjust.keep(found[:50], alpha[group[:50]]).all()
    assert not adjust.keep(torch.tensor([value + 1e-3]), alpha[:1]).any()  # and nothing above
    assert int(adjust.keep(found[50:], alpha[group[50:]]).sum()) == 45  # the other class is untouched


def test_a_heap_at_the_smallest_error_is_kept() -> None:
    found = torch.cat([torch.zeros(95), torch.ones(5)])  # the quantile is 0, and nothing lies below
    group = torch.zeros(100, dtype=torch.int64)
    kept = adjust.keep(found, adjust.thresholds(found, group, 1, 0.9)[group])
    assert int(kept.sum()) == 95
    assert not kept[95:].any()


def test_a_group_without_a_fake_keeps_what_comes() -> None:
    alpha = adjust.thresholds(errors(10), torch.zeros(10, dtype=torch.int64), 2, 0.5)
    assert adjust.keep(torch.tensor([1e30]), alpha[1:]).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_replaced_labels_are_the_predictions(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    columns = {"prediction": torch.tensor([2.0, 0.0, 5.0]), "error": errors(3)}
    fakes = ImageSet(images, torch.zeros(3, dtype=dtype), columns)
    found = adjust.relabelled(fakes, "hard")
    assert found.labels.tolist() == [2, 0, 5]
    assert found.labels.dtype == dtype
    assert torch.equal(found.images, images)
    assert torch.equal(found.columns["error"], columns["error"])
    assert fakes.labels.tolist() == [0, 0, 0]
