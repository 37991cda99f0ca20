"""A GAN that fails goes back once and continues more slowly, or says why it can't; a stuck generator is measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.config.settings import GanSettings
from cgankd.core import rng
from cgankd.core.errors import TrainingError
from cgankd.core.progress import Progress
from cgankd.core.store import Store, Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import Sampler
from cgankd.gan.step import GanStep
from cgankd.gan.train import TrainedGan, train_gan
from cgankd.gan.variety import measure_variety
from cgankd.pipeline import stages
from cgankd.tasks import Classification, Regression, Task
from works import stopped_at_every_save

CLASSES = Classification(("dark", "bright"))
SCALAR = Regression(0.0, 1.0)
SMALL = {"channels": 4, "latent": 5, "label_dim": 32, "batch_size": 8, "ema_start": 2, "steps": 20}


class Told(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def grey(task: Task, count: int = 64) -> ImageSet:
    """Images whose brightness is their label, with much noise."""
    torch_rng = torch.Generator().manual_seed(0)
    labels = torch.rand(count, generator=torch_rng) if task.continuous else torch.arange(count) % 2
    level = 30 + 150 * labels.float()[:, None, None, None]
    return ImageSet((level + 70 * torch.rand(count, 1, 16, 16, generator=torch_rng)).to(torch.uint8), labels)


def trained(work: Work, **changes: Any) -> TrainedGan:
    return train_gan(work, grey(CLASSES), CLASSES, GanSettings(**{**SMALL, **changes}), seed=0)


def poison(monkeypatch: pytest.MonkeyPatch, at: int, *, slow_too: bool = False) -> None:
    """After step ``at`` a weight of the generator is not a number; in a slower second try only if ``slow_too``."""
    step = GanStep.step

    def poisoned(self: GanStep, number: int) -> dict[str, Tensor]:
        values = step(self, number)
        if number + 1 == at and (slow_too or self.generator_optimizer.param_groups[0]["lr"] > 1e-4):
            self.generator_weights[0].data.view(-1)[0] = math.nan
        return values

    monkeypatch.setattr(GanStep, "step", poisoned)


@pytest.mark.parametrize("rate", [5.0, 1e30])
def test_a_rate_that_is_too_high_is_lowered_once_in_the_stage(rate: float, fabric: Fabric, tmp_path: Path) -> None:
    told = Told()
    gan = GanSettings(**{**SMALL, "generator_rate": rate, "discriminator_rate": rate})
    arguments: dict[str, Any] = {
        "train": grey(CLASSES), "size": (16, 16), "task": CLASSES, "gan": gan, "scalar": None, "teacher": None,
        "seed": 0,
    }  # fmt: skip
    store = Store(tmp_path, fabric, told)
    if rate > 5.0:
        with pytest.raises(TrainingError, match="ten after a first fault; lower generator"):
            store.call(stages.train_generator, **arguments)
        assert len(told.lines) == 1
        return
    artifact = store.call(stages.train_generator, **arguments)
    (sentence,) = told.lines
    assert sentence.startswith("train generator: all images are alike at step ")
    assert sentence.endswith("continued with a tenth of generator.generator_rate and generator.discriminator_rate.")
    assert artifact.summary["second_try"] == sentence
    assert [entry["step"] for entry in artifact.summary["history"]] == list(range(1, 21))
    assert not list(artifact.folder.glob("checkpoint*"))


def test_a_training_goes_back_to_its_last_good_state(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 13)
    rates: list[float] = []
    step = GanStep.step

    def watched(self: GanStep, number: int) -> dict[str, Tensor]:
        rates.append(self.generator_optimizer.param_groups[0]["lr"])
        return step(self, number)

    monkeypatch.setattr(GanStep, "step", watched)
    gan = trained(Work(fabric, folder=tmp_path))
    # a good state is kept at every fifth step, so steps 11 to 13 are done twice
    assert gan.second_try is not None
    assert "is not finite, so its training went back to step 10" in gan.second_try
    assert rates == [3e-4] * 13 + [pytest.approx(3e-5)] * 10
    assert [entry["step"] for entry in gan.history] == list(range(1, 21))
    assert all(torch.isfinite(weight).all() for weight in gan.sampler.network.parameters())


@pytest.mark.long
def test_a_killed_training_goes_back_as_one_that_is_not_killed(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 13)
    whole = trained(Work(fabric, folder=tmp_path), lecam=0.3)
    again, calls = stopped_at_every_save(fabric, tmp_path / "killed", lambda work: trained(work, lecam=0.3))
    assert calls > 20
    assert again.history == whole.history
    assert again.second_try == whole.second_try is not None
    for name, value in whole.sampler.network.state_dict().items():
        assert torch.equal(again.sampler.network.state_dict()[name], value), name


@pytest.mark.parametrize("kept", [True, False])
def test_a_second_fault_ends_the_training(
    kept: bool, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 13, slow_too=True)
    with pytest.raises(TrainingError, match=r"generator: .* not finite.* set runtime.precision=fp32$") as error:
        trained(Work(fabric, folder=tmp_path if kept else None))
    # without a folder no good state is kept, so there is no second try
    assert ("although the learning rates were divided by ten" in str(error.value)) is kept


def test_a_weight_that_the_last_step_spoils_is_seen(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 20)  # no loss shows it any more, and NaN as a pixel is 0
    with pytest.raises(TrainingError, match=r"weight generator\.\S+ is not finite"):
        trained(Work(fabric))


# --- variety ----------------------------------------------------------------------------------------------------------


class Stuck(Sampler):
    """Draws ``distinct`` different images of each label; ``labels``: only for these, and noise for others."""

    def __init__(self, distinct: int, stuck: tuple[float, ...] = (0, 1)) -> None:
        self.distinct, self.stuck = distinct, stuck

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        held = torch.tensor([float(target) in self.stuck or targets.is_floating_point() for target in targets])
        index = torch.where(held, indices % self.distinct, indices)
        pixels = rng.bits(0, "pixels", index[:, None] * 256 + torch.arange(256)) % 70
        level = 30 + 150 * targets.float()[:, None]
        return (level + pixels).to(torch.uint8).view(-1, 1, 16, 16)


@pytest.mark.parametrize("task", [CLASSES, SCALAR])
@pytest.mark.parametrize(("distinct", "alike"), [(1, True), (3, True), (10**6, False)])
def test_few_different_images_are_alike(task: Task, distinct: int, alike: bool) -> None:
    variety = measure_variety(Stuck(distinct), grey(task, 400), task, 0)
    assert len(variety["labels"]) == (10 if task.continuous else 2)
    assert variety["alike"] == (variety["labels"] if alike else [])
    for value in variety["values"]:
        assert value == 0.0 if alike else 0.9 < value < 1.1


def test_a_generator_may_be_stuck_at_one_label() -> None:
    variety = measure_variety(Stuck(1, stuck=(1,)), grey(CLASSES), CLASSES, 0)
    assert variety["alike"] == ["bright"]


def test_real_images_that_are_alike_say_nothing() -> None:
    same = ImageSet(torch.full((10, 1, 16, 16), 7, dtype=torch.uint8), torch.arange(10) % 2)
    variety = measure_variety(Stuck(1), same, CLASSES, 0)
    assert variety == {"labels": ["dark", "bright"], "values": [None, None], "alike": []}
