"""The image store: on disk as in memory, and compacted where slots stayed empty."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cgankd.synthesis.store import ImageStore, open_images

SHAPE = (3, 16, 20)


def pictures(count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=rng)


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("empty", [[], [0, 4, 5, 11], list(range(12))])
def test_filled_slots_come_back_in_order(on_disk: bool, empty: list[int], tmp_path: Path) -> None:
    images = pictures(12)
    path = tmp_path / "images.u8"
    store = ImageStore(path if on_disk else None, 12, SHAPE)
    filled = torch.ones(12, dtype=torch.bool)
    filled[empty] = False
    slots = filled.nonzero().squeeze(1).flip(0)  # written in another order than they are read
    for part in slots.split(5):
        store.put(part, images[part])
    found = store.close(filled)
    assert found.dtype == torch.uint8
    assert torch.equal(found, images[filled])
    if on_disk:
        assert path.stat().st_size == int(filled.sum()) * 3 * 16 * 20
        assert torch.equal(open_images(path, SHAPE), images[filled])
        assert [file.name for file in tmp_path.iterdir()] == ["images.u8"]


def test_writing_to_opened_images_does_not_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "images.u8"
    store = ImageStore(path, 2, SHAPE)
    store.put(torch.arange(2), pictures(2))
    found = store.close(torch.ones(2, dtype=torch.bool))
    found.zero_()
    assert torch.equal(open_images(path, SHAPE), pictures(2))


def test_compaction_of_more_than_one_block(tmp_path: Path) -> None:
    count, shape = 25_000, (1, 2, 2)
    numbers = torch.arange(count)
    images = torch.stack([numbers >> 8, numbers & 255, numbers * 0, numbers * 0], dim=1).to(torch.uint8)
    images = images.view(count, *shape)
    store = ImageStore(tmp_path / "images.u8", count, shape)
    store.put(numbers, images)
    filled = numbers % 3 != 0
    assert torch.equal(store.close(filled), images[filled])


def test_a_linked_copy_of_an_older_file_stays_as_it_is(tmp_path: Path) -> None:
    ImageStore(tmp_path / "images.u8", 2, (1, 2, 2)).put(torch.tensor([0]), torch.full((1, 1, 2, 2), 7).byte())
    os.link(tmp_path / "images.u8", tmp_path / "copy.u8")
    ImageStore(tmp_path / "images.u8", 2, (1, 2, 2))
    assert (tmp_path / "copy.u8").read_bytes() == bytes([7] * 4 + [0] * 4)
