"""Which process computes which rows of a call; tests/synthesis/test_shared_synthesis.py runs several processes."""

from __future__ import annotations

import pytest
import torch

from cgankd.core.shared_calls import _parts, called_by_first
from cgankd.core.shared_rows import own_rows


@pytest.mark.parametrize(("total", "count"), [(7, 3), (1, 3), (6, 2), (2, 4)])
def test_each_row_belongs_to_one_process(total: int, count: int) -> None:
    parts = _parts((torch.arange(total), "the same for all"), count)
    assert torch.cat([torch.arange(total)[part] for part in parts]).tolist() == list(range(total))
    sizes = [part.stop - part.start for part in parts]
    assert len(sizes) == count
    assert sizes[0] == max(sizes) > 0  # the first process allocates the rows of all like its own
    assert max(sizes) - min(sizes) <= 1


def test_one_process_calls_the_function_itself() -> None:
    with called_by_first(own_rows) as function:
        assert function is own_rows
