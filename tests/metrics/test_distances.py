"""Blocked distances against one whole matrix in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from cgankd.metrics.distances import nearest, within


@pytest.mark.parametrize("rows", [4, 7, 1000])
def test_nearest_equals_sorting_the_whole_matrix_in_any_block_size(rows: int) -> None:
    rng = torch.Generator().manual_seed(0)
    queries, references = torch.randn(23, 5, generator=rng), torch.randn(31, 5, generator=rng)
    whole = cdist(queries.numpy(), references.numpy())
    distance, row = nearest(queries, references, k=3, rows=rows)
    assert row.numpy() == pytest.approx(np.argsort(whole, axis=1)[:, :3])
    assert distance.numpy() == pytest.approx(np.sort(whole, axis=1)[:, :3], rel=1e-5)


@pytest.mark.parametrize("rows", [5, 1000])
def test_nothing_is_its_own_neighbour(rows: int) -> None:
    x = torch.randn(17, 4, generator=torch.Generator().manual_seed(1))
    whole = cdist(x.numpy(), x.numpy()) + np.diag(np.full(17, np.inf))
    distance, row = nearest(x, x, k=2, same=True, rows=rows)
    assert row.numpy() == pytest.approx(np.argsort(whole, axis=1)[:, :2])
    assert distance.numpy() == pytest.approx(np.sort(whole, axis=1)[:, :2], rel=1e-5)


@pytest.mark.parametrize("same", [False, True])
def test_neighbours_far_from_zero_and_close_together(same: bool) -> None:
    x, y = 50 + 0.01 * torch.randn(2, 60, 16, generator=torch.Generator().manual_seed(4))
    whole = cdist(x.numpy(), x.numpy()) + np.diag(np.full(60, np.inf)) if same else cdist(x.numpy(), y.numpy())
    distance, row = nearest(x, x if same else y, k=3, same=same)
    assert row.numpy() == pytest.approx(np.argsort(whole, axis=1)[:, :3])
    assert distance.numpy() == pytest.approx(np.sort(whole, axis=1)[:, :3], rel=1e-5)


def test_a_copy_among_bright_images_is_at_distance_zero() -> None:
    images = torch.randint(200, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    nearly = images[40:41].clone()
    nearly[0, 0, 0, 0] = 255 - nearly[0, 0, 0, 0]
    step = abs(int(nearly[0, 0, 0, 0]) - int(images[40, 0, 0, 0]))
    distance, row = nearest(torch.cat([images[7:8], nearly]), images)
    assert row.squeeze(1).tolist() == [7, 40]
    assert distance.squeeze(1).tolist() == [0.0, step]  # cdist alone is off by tenths here


@pytest.mark.parametrize("rows", [3, 1000])
def test_within_equals_loops(rows: int) -> None:
    rng = torch.Generator().manual_seed(3)
    queries, references = torch.rand(20, 2, generator=rng), torch.rand(12, 2, generator=rng)
    radii = 0.3 * torch.rand(12, generator=rng)
    whole = cdist(queries.numpy(), references.numpy())
    expected = [any(whole[q, r] <= radii[r] for r in range(12)) for q in range(20)]
    assert 0 < sum(expected) < 20
    assert within(queries, references, radii, rows=rows).tolist() == expected
