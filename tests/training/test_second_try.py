"""A training that fails in bfloat16 is done once more in float32, and gives what a float32 training gives."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import distill
from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.progress import Progress
from cgankd.core.store import Store, Work
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.nets.build import Architecture
from cgankd.pipeline import stages
from cgankd.tasks import Classification
from cgankd.training.best import BestWeights, Kept
from cgankd.training.faults import NotFinite
from cgankd.training.loop import fit
from cgankd.training.second_try import fit_with_second_try
from works import stopped_at_every_save

CLASSES = Classification(("a", "b", "c"))
Noise = Callable[..., ImageSet]
SETTINGS = FitSettings(steps=6, batch_size=8, augment=AugmentSettings(views=2))
NETWORK = """
import math
import torch
from torch import nn

class Brittle(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, stride=4), nn.Linear(64, outputs)

    def forward(self, images):
        maps = self.conv(images)
        if self.training and maps.dtype == torch.bfloat16:
            maps = maps * math.nan
        return self.fc(maps.flatten(1))

def build(in_channels, num_outputs, image_size):
    return Brittle(num_outputs)
"""


class Brittle(nn.Module):
    """Its training gives NaN in bfloat16 from the fourth batch on; always: in float32 too."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Linear(64, 3)
        self.always = always

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        fails = self.always or maps.dtype == torch.bfloat16
        if self.training and fails and int(self.norm.num_batches_tracked) >= 3:
            maps = maps * math.nan
        outputs: Tensor = self.fc(self.norm(maps).flatten(1))
        return outputs


class Told(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def rounding() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")


def twice(work: Work, images: ImageSet, always: bool = False) -> tuple[nn.Module, list[Any], str | None, BestWeights]:
    student, best = Brittle(always), BestWeights(CLASSES)
    history, sentence = fit_with_second_try(
        work, student, lambda: distill.create("supervised", CLASSES), TrainingImages(images, validation=images),
        SETTINGS, seed=0, kept=Kept(best=best),
    )  # fmt: skip
    return student, history, sentence, best


def test_the_second_try_is_a_training_in_float32(noise: Noise, rounding: Fabric, fabric: Fabric) -> None:
    images, told = noise(24), Told()
    student, history, sentence, best = twice(Work(rounding, told, title="kd"), images)
    assert sentence == (
        "kd: the loss is nan at step 4 of 6 in bfloat16, so it was trained once more from the start, in float32."
    )
    assert told.lines == [sentence]
    exact = Brittle()
    exact_best = BestWeights(CLASSES)
    expected = fit(
        Work(fabric), exact, distill.create("supervised", CLASSES), TrainingImages(images, validation=images), SETTINGS,
        seed=0, kept=Kept(best=exact_best),
    )  # fmt: skip
    assert history == expected
    assert best.step == exact_best.step
    for name, value in exact.state_dict().items():
        assert torch.equal(student.state_dict()[name], value), name
        assert torch.equal(best.tensors[name], exact_best.tensors[name]), name


def test_a_killed_second_try_goes_on(noise: Noise, rounding: Fabric, tmp_path: Path) -> None:
    images = noise(24)
    student, history, sentence, best = twice(Work(rounding), images)
    (again, *resumed, best_again), calls = stopped_at_every_save(
        rounding, tmp_path, lambda work: twice(work, images), most=50
    )
    assert calls > 8  # saves of the first try, then of the second
    assert resumed == [history, sentence]
    assert best_again.step == best.step
    for name, value in student.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_float32_has_no_second_try(noise: Noise, fabric: Fabric, rounding: Fabric) -> None:
    for device in (fabric, rounding):
        told = Told()
        with pytest.raises(NotFinite, match="nan at step 4 of 6; a lower learning_rate than"):
            twice(Work(device, told), noise(24), always=True)
        assert len(told.lines) == (device is rounding)


def test_the_stage_of_a_teacher_keeps_the_sentence(
    noise: Noise, rounding: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "brittle_net", raising=False)
    (tmp_path / "brittle_net.py").write_text(NETWORK)
    images = noise(24)
    artifact = Store(tmp_path / "run", rounding).titled("teacher (seed 0)").call(
        stages.train_network, network=Architecture("brittle_net:build"), start=None, images=TrainingImages(images),
        fit=SETTINGS, val=images, task=CLASSES, seed=0,
    )  # fmt: skip
    assert artifact.summary["second_try"].startswith("teacher (seed 0): the loss is nan at step 1 of 6 in bfloat16")
    assert all(torch.isfinite(weight).all() for weight in artifact.tensors("weights").values())
    assert not list(artifact.folder.glob("checkpoint*"))
