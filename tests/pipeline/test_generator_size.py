"""generator.size: the GAN draws small images, and everything after it sees them at the images' own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from test_run_road import tiny

from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors
from cgankd.data.resizing import resized
from cgankd.gan.generator import GanSampler
from cgankd.pipeline import run
from cgankd.pipeline.run import opened
from cgankd.shipping.finished import FinishedRun

LARGE = ("data.size=24", "seeds=[0]", "compare.methods=[cgan]", "metrics.generator=false")


def test_images_are_resized_as_import_resizes_them() -> None:
    images = torch.randint(0, 256, (2, 3, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for side in (16, 32):
        pillow = [
            np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.BILINEAR))
            for image in images
        ]
        assert torch.equal(resized(images, (side, side)), torch.from_numpy(np.stack(pillow)).permute(0, 3, 1, 2))
    grey = images[:, :1]
    assert torch.equal(resized(grey, (16, 16)), resized(images, (16, 16))[:, :1])
    assert resized(grey, (20, 20)) is grey


def test_the_gan_sees_small_images_and_the_student_large_ones(tmp_path: Path, fabric: Fabric) -> None:
    results = run.run(tiny(*LARGE, "generator.size=16"), tmp_path)
    for name in ("generator", "data"):
        preview = load_tensors(tmp_path / results["artifacts"][name] / "preview.safetensors")[0]
        assert preview["images"].shape[2:] == (24, 24)
    sampler = FinishedRun.open(tmp_path).generator(fabric)
    targets, indices = torch.tensor([1, 2, 3]), torch.arange(3)
    assert isinstance(sampler, GanSampler)
    drawn = sampler.sample(targets, indices, 0)
    sampler.size = None  # as the network draws
    small = sampler.sample(targets, indices, 0)
    assert small.shape == (3, 1, 16, 16)
    assert torch.equal(drawn, resized(small, (24, 24)))
    fakes = load_tensors(tmp_path / results["artifacts"]["synthesis"]["cgan"] / "samples.safetensors")[0]
    assert {tensor.shape[2:] for name, tensor in fakes.items() if name.endswith("_images")} == {(24, 24)}


@pytest.mark.long
def test_the_images_own_size_is_the_same_generator_as_no_size(tmp_path: Path) -> None:
    with opened(tiny(*LARGE), tmp_path / "a") as road, opened(tiny(*LARGE, "generator.size=24"), tmp_path / "b") as own:
        assert road.generator(0).key == own.generator(0).key


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generator.size=32"], r"generator.size = 32 is larger than the images, which have 24x24 pixels"),
        (["generator.size=15"], r"generator.size = 15"),
        (["generator.size=16", "generator.source=mine:draw"], r"generator.source mine:draw takes its place"),
        (["generator.size=16", "generator.multipliers=[1,2,3]"], r"images of 16x16 pixels need 2"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run.run(tiny(*LARGE, *words), tmp_path / "run")
    assert not (tmp_path / "run").exists()
