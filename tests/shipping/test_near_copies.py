"""Copies among exported images are counted and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cgankd.core.progress import SILENT
from cgankd.data.imageset import ImageSet
from cgankd.shipping.near_copies import near_copies, write_pairs


def test_planted_copies_are_counted_and_shown_first(noise: Callable[..., ImageSet], tmp_path: Path) -> None:
    train, unlike, fakes = noise(40, seed=1), noise(20, seed=2), noise(30, seed=3)
    held_out = ImageSet(train.images[:20] // 2 + unlike.images // 2, unlike.labels)  # nearer to train than noise is
    fakes.images[5] = train.images[17]
    fakes.images[9] = train.images[3]
    fakes.images[9, 0, 0, 0] ^= 64  # one pixel of 256 changed by 64 levels: a root mean square of 4
    near = near_copies(fakes, train, held_out, SILENT)
    assert (near.compared, near.train, near.held_out, near.near) == (30, 40, 20, 2)
    assert near.distances[:2].tolist() == [0.0, 4.0]
    assert torch.equal(near.pairs[0, 0], fakes.images[5])
    assert torch.equal(near.pairs[0, 1], train.images[17])
    assert near.median > 50
    write_pairs(near, tmp_path / "nearest.png")
    assert Image.open(tmp_path / "nearest.png").size in [(840, 420), (840, 419)]  # matplotlib 3.8 rounds down


@pytest.mark.parametrize("repeated", [False, True])
def test_without_a_scale_nothing_is_counted(repeated: bool, noise: Callable[..., ImageSet]) -> None:
    train = noise(20, seed=1)
    held_out = train.few(15) if repeated else noise(9, seed=2)
    near = near_copies(noise(12, seed=3), train, held_out, SILENT)
    assert (near.near, near.cutoff, near.expected) == (None, None, None)
    assert len(near.pairs) <= 12
