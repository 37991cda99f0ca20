"""Images at rest: their mean and spread, and what room that takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cgankd.config.settings import DataSettings
from cgankd.core.mapped_rows import MappedRows, joined
from cgankd.data import sources
from cgankd.data.imageset import ImageSet


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_spread_of_each_channel(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (1037, channels, 17, 16), dtype=np.uint8)  # more than one block
    images[:, -1] //= 3
    mean, spread = ImageSet(torch.from_numpy(images), torch.zeros(1037, dtype=torch.int64)).pixel_statistics
    pixels = images.astype(np.float64) / 255
    assert mean.numpy() == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-6)
    assert spread.numpy() == pytest.approx(pixels.std(axis=(0, 2, 3), ddof=1), rel=1e-6)
    assert mean.dtype == spread.dtype == torch.float32


MEMORY = """
import resource, sys, torch
from cgankd.data.imageset import ImageSet
from cgankd.nets.build import Architecture, fresh_network
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # MB on Linux
small = ImageSet(torch.zeros(2000, 3, 16, 16, dtype=torch.uint8), torch.zeros(2000, dtype=torch.int64))
fresh_network(Architecture("cnn8"), small, 2, 0)
images = ImageSet(torch.ones(4000, 3, 96, 96, dtype=torch.uint8), torch.zeros(4000, dtype=torch.int64))  # 111 MB
before = peak()
fresh_network(Architecture("cnn8"), images, 2, 0)
print(peak() - before)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit")
def test_a_new_network_needs_no_copy_of_the_images() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # as floats they would take 442 MB


@pytest.mark.parametrize("pool_has_more", [False, True])
def test_validation_images_join_the_labelled_ones(pool_has_more: bool) -> None:
    splits = sources.load(DataSettings(source="digits", **({"train_size": 60} if pool_has_more else {}), val_size=20))
    every = splits.with_validation()
    rows = {"train": splits.train, "val": splits.val}
    assert torch.equal(every.train.images[:], torch.cat([part.images[:] for part in rows.values()]))
    assert torch.equal(every.train.labels, torch.cat([part.labels for part in rows.values()]))
    assert every.train.names == splits.train.names
    assert every.pool is (splits.pool if pool_has_more else every.train)
    assert (every.val, every.test) == (splits.val, splits.test)
    assert torch.equal(every.unlabelled.images[:], splits.unlabelled.images[:])


def test_rows_of_one_file_are_joined_without_a_copy(tmp_path: Path) -> None:
    images = torch.arange(5 * 3 * 16 * 16).to(torch.uint8).view(5, 3, 16, 16)
    path = tmp_path / "images.npy"
    np.save(path, images.numpy())
    mapped = MappedRows(np.load(path, mmap_mode="r"))
    first, second = mapped.take(torch.tensor([4, 0])), mapped.take(torch.tensor([2]))
    both = joined(first, second)
    assert isinstance(both, MappedRows)
    assert both.mapped is mapped.mapped
    assert torch.equal(both[:], images[[4, 0, 2]])
    assert torch.equal(joined(first, images[1:2])[:], images[[4, 0, 1]])  # type: ignore[arg-type]
