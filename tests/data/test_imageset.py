"""Images at rest: their mean and spread, and what room that takes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

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
