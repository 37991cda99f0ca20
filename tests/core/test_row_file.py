"""Rows in a file: on disk as in memory, compacted where some stayed empty, and found again after a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cgankd.core import row_file
from cgankd.core.row_file import RowFile, open_rows, release_pages

SHAPE = (3, 16, 20)


def pictures(count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=rng)


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("empty", [[], [0, 4, 5, 11], list(range(12))])
def test_filled_slots_come_back_in_order(on_disk: bool, empty: list[int], tmp_path: Path) -> None:
    images = pictures(12)
    path = tmp_path / "images.u8"
    file = RowFile(path if on_disk else None, 12, SHAPE)
    filled = torch.ones(12, dtype=torch.bool)
    filled[empty] = False
    slots = filled.nonzero().squeeze(1).flip(0)  # written in another order than they are read
    for part in slots.split(5):
        file.rows[part] = images[part]
    found = file.close(filled)
    assert found.dtype == torch.uint8
    assert torch.equal(found, images[filled])
    if on_disk:
        assert path.stat().st_size == int(filled.sum()) * 3 * 16 * 20
        assert torch.equal(open_rows(path, SHAPE), images[filled])
        assert [entry.name for entry in tmp_path.iterdir()] == ["images.u8"]


def test_writing_to_opened_images_does_not_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "images.u8"
    file = RowFile(path, 2, SHAPE)
    file.rows[torch.arange(2)] = pictures(2)
    found = file.close(torch.ones(2, dtype=torch.bool))
    found.zero_()
    assert torch.equal(open_rows(path, SHAPE), pictures(2))


def test_compaction_of_more_than_one_block(tmp_path: Path) -> None:
    count, shape = 25_000, (1, 2, 2)
    numbers = torch.arange(count)
    images = torch.stack([numbers >> 8, numbers & 255, numbers * 0, numbers * 0], dim=1).to(torch.uint8)
    images = images.view(count, *shape)
    file = RowFile(tmp_path / "images.u8", count, shape)
    file.rows[numbers] = images
    filled = numbers % 3 != 0
    assert torch.equal(file.close(filled), images[filled])


def test_a_linked_copy_of_an_older_file_stays_as_it_is(tmp_path: Path) -> None:
    RowFile(tmp_path / "images.u8", 2, (1, 2, 2)).rows[0] = 7
    os.link(tmp_path / "images.u8", tmp_path / "copy.u8")
    RowFile(tmp_path / "images.u8", 2, (1, 2, 2))
    assert (tmp_path / "copy.u8").read_bytes() == bytes([7] * 4 + [0] * 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64, torch.bool])
def test_a_killed_process_file_is_gone_on_with(dtype: torch.dtype, tmp_path: Path) -> None:
    first = RowFile(tmp_path / "rows", 3, (2,), dtype)
    first.rows[1] = 1
    del first
    second = RowFile(tmp_path / "rows", 3, (2,), dtype, resume=True)
    assert second.resumed
    assert second.rows.tolist() == torch.tensor([[0, 0], [1, 1], [0, 0]]).to(dtype).tolist()
    assert not RowFile(tmp_path / "rows", 3, (2,), dtype).rows.any()  # resume was not asked for


def test_a_file_of_another_size_is_begun_anew(tmp_path: Path) -> None:
    RowFile(tmp_path / "rows", 3, (2,)).rows[:] = 1
    file = RowFile(tmp_path / "rows", 4, (2,), resume=True)
    assert not file.resumed
    assert not file.rows.any()


def test_no_rows(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows", 0, (3, 2))
    assert file.close(torch.zeros(0, dtype=torch.bool)).shape == (0, 3, 2)
    assert open_rows(tmp_path / "rows", (3, 2)).shape == (0, 3, 2)


# --- resident pages -------------------------------------------------------------------------------------------------

SIZE = 24_000_000  # bytes of a file


@pytest.fixture
def least(monkeypatch: pytest.MonkeyPatch) -> int:
    """Pages are given back once this many bytes are resident."""
    if not row_file.STATM.exists():
        pytest.skip("resident pages are not known on this system")
    monkeypatch.setattr(row_file, "MOST_RESIDENT", 4_000_000)
    monkeypatch.setattr(row_file, "_mappings", row_file._Mappings())
    return 4_000_000


def test_resident_memory_does_not_grow_with_the_rows_that_are_written_and_read(tmp_path: Path, least: int) -> None:
    file = RowFile(tmp_path / "rows", SIZE // 1000, (1000,))
    floor = most = row_file._resident()
    for rows in torch.arange(len(file.rows)).split(500):
        file.rows[rows] = (rows % 251).to(torch.uint8)[:, None]
        release_pages()
        most = max(most, row_file._resident())
    images = file.close(torch.ones(len(file.rows), dtype=torch.bool))
    del file
    assert images[::100, 7].tolist() == [row % 251 for row in range(0, len(images), 100)]
    for rows in torch.arange(len(images)).split(500):
        assert int(images[rows].sum()) == 1000 * int((rows % 251).sum())
        release_pages()
        most = max(most, row_file._resident())
    assert most - floor < 3 * least  # the file is 6 times as large


def test_rows_that_the_program_has_changed_keep_their_values(tmp_path: Path, least: int) -> None:
    file = RowFile(tmp_path / "rows", SIZE // 1000, (1000,))
    file.rows[:] = 1
    images = file.close(torch.ones(SIZE // 1000, dtype=torch.bool))
    images[3] = 9
    for _ in range(3):
        assert int(images.long().sum()) == SIZE + 8 * 1000
        release_pages()
    assert images[2:5, 0].tolist() == [1, 9, 1]
