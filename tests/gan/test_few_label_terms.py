"""The terms for few labels: each against a second way to compute it, and all together go on bit for bit."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor, nn

from cgankd.config.settings import ILI, GanSettings, GuidanceSettings, ScalarLabelSettings
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.gan import train as gan_train
from cgankd.gan.generator import GanSampler, new_networks
from cgankd.gan.guidance import Guidance, check_terms, statistics_distance
from cgankd.gan.losses import LOSSES, squared_gradient
from cgankd.gan.residual import Verdict
from cgankd.gan.step import GanStep, Networks, label_strength
from cgankd.gan.train import train_gan
from cgankd.labels import label_embedding, label_space
from cgankd.nets import inference
from cgankd.tasks import Classification, Regression, Task
from waits import Waits, Watched, accelerated
from works import stopped_at_every_save

CLASSES = Classification(("dark", "bright"))
SCALAR = Regression(0.0, 1.0)
SMALL = {"channels": 4, "latent": 5, "label_dim": 32, "batch_size": 8, "ema_start": 2}
QUICK = ScalarLabelSettings(label_input=ILI(steps=3))


def grey(task: Task, count: int = 32) -> ImageSet:
    """Images whose brightness is their label."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.rand(count, generator=rng) if task.continuous else torch.arange(count) % 2
    level = 30 + 190 * labels.float()[:, None, None, None]
    return ImageSet((level + 20 * torch.rand(count, 1, 16, 16, generator=rng)).to(torch.uint8), labels)


def teacher(outputs: int = 2) -> nn.Module:
    """A small network with batch norm, whose running statistics are not the initial ones."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, outputs)
    )
    for _ in range(20):
        network(torch.rand(16, 1, 16, 16))
    return network.eval()


def guided(guide: nn.Module | None, task: Task, settings: GanSettings, fabric: Fabric) -> Guidance | None:
    """The teacher in the generator's loss, where the settings ask for it."""
    if settings.guidance is None or guide is None:
        return None
    return Guidance(guide, task, settings.guidance, fabric, grey(task))


def one_step(fabric: Fabric, task: Task = CLASSES, guide: nn.Module | None = None, **changes: Any) -> GanStep:
    """Untrained networks, ready for a step."""
    settings = GanSettings(**{**SMALL, "steps": 10, **changes})
    train = grey(task)
    labels = task.to_target(train.labels)
    scalar = QUICK if task.continuous else None
    torch.manual_seed(0)
    generator, discriminator = new_networks(settings, label_embedding(task, scalar, 32), 1, (16, 16))
    average = new_networks(settings, label_embedding(task, scalar, 32), 1, (16, 16))[0].requires_grad_(False)
    guidance = guided(guide, task, settings, fabric)
    networks = Networks(generator, discriminator, average)
    return GanStep(networks, train, labels, label_space(task, labels, scalar), settings, fabric, 0, guidance)


def train(fabric: Fabric, task: Task, guide: nn.Module | None = None, **changes: Any) -> tuple[GanSampler, Any]:
    settings = GanSettings(**{**SMALL, "steps": 6, **changes})
    scalar, guidance = QUICK if task.continuous else None, guided(guide, task, settings, fabric)
    sampler, history, _ = train_gan(Work(fabric), grey(task), task, settings, scalar, seed=0, guidance=guidance)
    return sampler, history


# --- relativistic loss, R1 and R2 ---------------------------------------------------------------------------------


def test_the_relativistic_loss_is_the_cross_entropy_of_which_of_a_pair_is_real() -> None:
    real, fake = torch.tensor([1.0, -2.0, 0.3]), torch.tensor([0.5, 1.0, 0.3])
    loss = LOSSES["relativistic"]
    by_hand = -sum(math.log(1 / (1 + math.exp(-(r - f)))) for r, f in zip(real.tolist(), fake.tolist(), strict=True))
    assert loss.discriminator(real, fake).item() == pytest.approx(by_hand / 3, rel=1e-6)
    by_hand = -sum(math.log(1 / (1 + math.exp(-(f - r)))) for r, f in zip(real.tolist(), fake.tolist(), strict=True))
    assert loss.generator(fake, real).item() == pytest.approx(by_hand / 3, rel=1e-6)
    half = loss.discriminator(real, fake, torch.full((3,), 0.5), None)
    assert half.item() == pytest.approx(loss.discriminator(real, fake).item() / 2)


def test_far_real_images_count_less_in_the_relativistic_loss_of_the_generator_too(fabric: Fabric) -> None:
    step = one_step(fabric, SCALAR, loss="relativistic")
    space, host = step.space, torch.Generator().manual_seed(0)
    drawn = space.discriminator_draw(SMALL["batch_size"], host)
    losses = []
    for weight in (None, torch.full((SMALL["batch_size"],), 0.25)):
        step.space = mock.Mock(discriminator_draw=lambda *_, w=weight: dataclasses.replace(drawn, real_weight=w))
        step.generator.eval()  # so that both see the same networks
        step.discriminator.eval()
        step.generator_optimizer = mock.Mock()
        losses.append(step._generator_step(host, torch.Generator().manual_seed(1))["generator_loss"].item())
    assert losses[1] == pytest.approx(losses[0] / 4, rel=1e-5)


def test_r2_adds_the_same_penalty_at_generated_images(fabric: Fabric) -> None:
    step = one_step(fabric, r1={"gamma": 3.0, "every": 1, "fakes": True})
    step.discriminator.eval()  # no power iteration, so that both ways see the same weights
    images, targets = torch.rand(8, 1, 16, 16) * 2 - 1, torch.arange(8) % 2
    step._penalise(0, images, targets[:4])
    together = [weight.grad.clone() for weight in step.discriminator_weights if weight.grad is not None]
    step.discriminator.zero_grad()
    for part in (images[:4], images[4:]):
        (1.5 * squared_gradient(step.discriminator, part, targets[:4])).backward()
    apart = [weight.grad for weight in step.discriminator_weights if weight.grad is not None]
    assert len(together) == len(apart) > 5
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# --- transition -----------------------------------------------------------------------------------------------------


def test_the_label_enters_in_a_line_between_two_steps() -> None:
    settings = GanSettings(steps=100, transition={"start": 0.2, "end": 0.4})
    assert [label_strength(step, settings) for step in (0, 20, 25, 30, 40, 99)] == pytest.approx(
        [0, 0, 0.25, 0.5, 1, 1]
    )
    assert label_strength(0, GanSettings()) == 1.0


@pytest.mark.parametrize("regulariser", [{}, {"r1": {"every": 1}}, {"lecam": 0.3}])
def test_before_the_transition_images_and_losses_ignore_the_label(regulariser: dict[str, Any], fabric: Fabric) -> None:
    step = one_step(fabric, transition={"start": 0.5, "end": 0.6}, **regulariser)
    projection = step.discriminator.projection.parametrizations.weight.original  # without spectral norm
    before = projection.clone()
    values = step.step(0)
    assert torch.equal(projection, before)
    assert all(math.isfinite(float(value)) for value in values.values())
    generator = step.generator.eval()
    z = torch.randn(3, 5)
    assert torch.equal(generator(z, torch.tensor([0, 0, 0])), generator(z, torch.tensor([1, 1, 1])))
    generator.label_strength = 1.0
    assert not torch.equal(generator(z, torch.tensor([0, 0, 0])), generator(z, torch.tensor([1, 1, 1])))


def test_a_transition_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"start is 0\.5 and end is 0\.3; allowed: a start below the end"):
        GanSettings(transition={"start": 0.5, "end": 0.3})


# --- auxiliary regression -------------------------------------------------------------------------------------------


def test_the_discriminator_learns_to_read_the_label(fabric: Fabric) -> None:
    step = one_step(fabric, SCALAR, auxiliary=1.0, discriminator_rate=0.01, diffaugment=())
    images = step._real(torch.arange(32))

    def error() -> float:
        with torch.no_grad():
            verdict = step.discriminator.eval().verdict(images, step.labels)
        step.discriminator.train()
        assert verdict.label is not None
        return float((verdict.label - step.labels).abs().mean())

    before = error()
    for number in range(10):
        step.step(number)
    assert error() < 0.6 * before


def test_the_generator_pays_for_labels_that_the_discriminator_does_not_read(fabric: Fabric) -> None:
    step = one_step(fabric, SCALAR, auxiliary=2.0)
    step.generator.label_strength = 1.0
    targets = torch.tensor([0.2, 0.8])
    verdict = Verdict(torch.tensor([1.0, 3.0]), None, torch.tensor([0.5, 0.7]))
    assert step._generator_loss(verdict, targets).item() == pytest.approx(-2.0 + 2.0 * 0.2)


# --- the teacher in the generator's loss ----------------------------------------------------------------------------


def test_the_distance_of_statistics_against_numbers_by_hand() -> None:
    norm = nn.BatchNorm2d(1)
    norm.running_mean, norm.running_var = torch.tensor([1.0]), torch.tensor([4.0])
    maps = torch.tensor([0.0, 2.0, 4.0, 6.0]).reshape(1, 1, 2, 2)  # mean 3, variance 5
    by_hand = (3 - 1) ** 2 / 4 + math.log(5 / 4) ** 2
    assert statistics_distance(maps, norm).item() == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("task", [CLASSES, SCALAR])
def test_the_teachers_loss_on_generated_images(task: Task, fabric: Fabric) -> None:
    guide = teacher(task.num_outputs)
    images = torch.rand(4, 1, 16, 16) * 2 - 1
    targets = torch.tensor([0.1, 0.9, 0.4, 0.5]) if task.continuous else torch.tensor([0, 1, 1, 0])
    found = Guidance(guide, task, GuidanceSettings(outputs=0.5, statistics=0.0), fabric, grey(task)).loss(
        images, targets
    )
    outputs = guide((images + 1) / 2)
    by_hand = 0.5 * task.loss(outputs, targets) * (100 if task.continuous else 1)  # tenths of the range, squared
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_statistics_count_beside_the_outputs_and_the_teacher_is_left_as_it_is(fabric: Fabric) -> None:
    guide = teacher()
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    guide.train()
    guidance = Guidance(guide, CLASSES, GuidanceSettings(outputs=0.0, statistics=3.0), fabric, grey(CLASSES))
    images = (torch.rand(6, 1, 16, 16) * 2 - 1).requires_grad_()
    loss = guidance.loss(images, torch.zeros(6, dtype=torch.int64))
    loss.backward()
    maps, norm = guide[0]((images.detach() + 1) / 2), guide[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert loss.item() == pytest.approx(3.0 * statistics_distance(maps, norm).item(), rel=1e-5)
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert guide.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in guide.parameters())
    assert all(torch.equal(value, before[name]) for name, value in guide.state_dict().items())
    assert not guide[1]._forward_pre_hooks


def test_guidance_lowers_the_teachers_loss_on_what_is_generated(fabric: Fabric) -> None:
    guide = teacher()
    targets = torch.arange(64) % 2

    def teachers_loss(**changes: Any) -> float:
        sampler, _ = train(fabric, CLASSES, guide, steps=12, generator_rate=0.01, **changes)
        images = sampler.sample(targets, torch.arange(64), 1).float() / 255
        with torch.no_grad():
            return float(CLASSES.loss(guide(images), targets))

    assert teachers_loss(guidance={"outputs": 20.0, "statistics": 0.0}) < teachers_loss() - 0.02


def test_smaller_images_are_enlarged_for_the_teacher(fabric: Fabric) -> None:
    guide, targets = teacher(), torch.tensor([0, 1])
    guidance = Guidance(guide, CLASSES, GuidanceSettings(statistics=0.0), fabric, grey(CLASSES))
    small = torch.rand(2, 1, 8, 8) * 2 - 1
    large = F.interpolate(small, (16, 16), mode="bilinear")
    assert guidance.loss(small, targets).item() == pytest.approx(guidance.loss(large, targets).item())


def test_terms_that_teacher_or_task_cannot_have_are_refused() -> None:
    with pytest.raises(UserError, match=r"guidance needs the teacher's gradient, but the teacher is ask\.py:answer"):
        check_terms(GanSettings(guidance=True), CLASSES, "ask.py:answer")
    with pytest.raises(
        UserError,
        match=r"auxiliary is 0\.5, .* scalar labels that don't wrap; the task is class",
    ):
        check_terms(GanSettings(auxiliary=0.5), CLASSES, None)
    check_terms(GanSettings(guidance=True, auxiliary=0.5), SCALAR, None)


# --- together -------------------------------------------------------------------------------------------------------


def all_terms(task: Task) -> dict[str, Any]:
    return {
        "loss": "relativistic",
        "r1": {"every": 2, "fakes": True},
        "transition": {"start": 0.1, "end": 0.8},
        "mode_seeking": 0.1,
        "lecam": 0.1,
        "guidance": True,
        "auxiliary": 0.5 if task.continuous else 0.0,
    }


@pytest.mark.parametrize("task", [CLASSES, SCALAR])
def test_with_all_terms_a_stopped_training_goes_on_bit_for_bit(task: Task, fabric: Fabric, tmp_path: Path) -> None:
    guide = teacher(task.num_outputs)
    settings = GanSettings(**{**SMALL, "steps": 4, **all_terms(task)})

    def loop(work: Work) -> tuple[dict[str, Tensor], Any]:
        scalar = QUICK if task.continuous else None
        guidance = guided(guide, task, settings, fabric)
        with mock.patch.object(gan_train, "STATISTICS_BATCHES", 2):
            sampler, history, _ = train_gan(work, grey(task), task, settings, scalar, seed=0, guidance=guidance)
        return sampler.network.state_dict(), history

    whole, history = loop(Work(fabric))
    (again, resumed), calls = stopped_at_every_save(fabric, tmp_path, loop)
    assert calls >= 5
    assert resumed == history
    for name, value in whole.items():
        assert torch.equal(again[name], value), name


@pytest.mark.parametrize(
    ("task", "terms"),
    [(CLASSES, "none"), (CLASSES, "all"), (SCALAR, "all")],
    ids=["classes-none", "classes-all", "scalar-all"],
)
def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch, task: Task, terms: str) -> None:
    monkeypatch.setattr(gan_train, "LOG_POINTS", 1)
    monkeypatch.setattr(gan_train, "STATISTICS_BATCHES", 1)
    changes = {**all_terms(task), "diffaugment": ["translation", "color", "cutout"]} if terms == "all" else {}
    settings = GanSettings(**{**SMALL, "ema_start": 1, "steps": 4, **changes})
    with Waits() as mode:
        fabric, progress = accelerated(), Watched(mode)
        guidance = guided(inference.place(teacher(task.num_outputs), fabric), task, settings, fabric)
        scalar = QUICK if task.continuous else None
        train_gan(Work(fabric, progress), grey(task), task, settings, scalar, seed=0, guidance=guidance)
    assert [len(seen) for seen in progress.loops] == ([6, 4] if task.continuous else [4])
    assert mode.seen
    assert progress.after(1) == Counter()


def test_a_number_that_is_read_in_a_step_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = GanStep._average

    def reading(self: GanStep, step: int) -> None:
        plain(self, step)
        self.generator_weights[0].sum().item()

    monkeypatch.setattr(GanStep, "_average", reading)
    monkeypatch.setattr(gan_train, "LOG_POINTS", 1)
    with Waits() as mode:
        progress = Watched(mode)
        train_gan(Work(accelerated(), progress), grey(CLASSES), CLASSES, GanSettings(**SMALL, steps=4), seed=0)
    assert sum(progress.after(1).values()) == 2
