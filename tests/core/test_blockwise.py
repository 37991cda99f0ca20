"""A pass over rows, block by block: the same with or without a folder, and exact after a kill at any block."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cgankd.core.blockwise import blockwise
from cgankd.core.errors import OutOfTime
from cgankd.core.store import Work


class Squares:
    """Counts its calls, and fails at one of them."""

    def __init__(self, fails_at: int = -1) -> None:
        self.calls: list[list[int]] = []
        self.fails_at = fails_at

    def __call__(self, rows: Tensor) -> dict[str, Tensor]:
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append(rows.tolist())
        return {"square": rows.float() ** 2, "pair": torch.stack([rows, -rows], dim=1)}


@pytest.fixture
def work(fabric: object, tmp_path: Path) -> Work:
    return Work(fabric, folder=tmp_path, checkpoint_seconds=0.0)  # type: ignore[arg-type]


EXPECTED = torch.arange(10).float() ** 2


@pytest.mark.parametrize("with_folder", [True, False])
def test_every_row_is_computed_once(work: Work, with_folder: bool) -> None:
    squares = Squares()
    found = blockwise(work if with_folder else dataclasses.replace(work, folder=None), "squares", 10, squares, 4)
    assert squares.calls == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(found["square"], EXPECTED)
    assert torch.equal(found["pair"], torch.stack([torch.arange(10), -torch.arange(10)], dim=1))


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_killed_pass_goes_on(work: Work, killed_at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        blockwise(work, "squares", 10, Squares(killed_at), 4)
    second = Squares()
    found = blockwise(work, "squares", 10, second, 4)
    assert len(second.calls) == 3 - killed_at
    assert torch.equal(found["square"], EXPECTED)


def test_a_lost_file_is_computed_anew(work: Work, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        blockwise(work, "squares", 10, Squares(2), 4)
    (tmp_path / "checkpoint-squares-pair.rows").unlink()
    second = Squares()
    assert torch.equal(blockwise(work, "squares", 10, second, 4)["square"], EXPECTED)
    assert len(second.calls) == 3


def test_out_of_time_ends_it_and_what_was_done_is_kept(work: Work) -> None:
    late = dataclasses.replace(work, deadline=time.monotonic())
    for remaining in (3, 2, 1):
        squares = Squares()
        with pytest.raises(OutOfTime):
            blockwise(late, "squares", 10, squares, 4)
        assert len(squares.calls) == 1, remaining
    assert torch.equal(blockwise(late, "squares", 10, Squares(0), 4)["square"], EXPECTED)


def test_rows_in_no_block_are_zero_and_passes_keep_apart(work: Work) -> None:
    some = [torch.tensor([1, 3]), torch.tensor([7])]
    found = blockwise(work, "some", 10, Squares(), some)["square"]
    other = blockwise(work, "other", 10, Squares(), 10)["square"]
    assert found.nonzero().squeeze(1).tolist() == [1, 3, 7]
    assert torch.equal(other, EXPECTED)


def test_no_rows_give_empty_tables(work: Work) -> None:
    assert blockwise(work, "none", 0, Squares())["pair"].shape == (0, 2)
