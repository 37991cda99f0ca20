"""Scores under attack against the exact worst case of linear networks; what can't be attacked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.settings import RobustnessSettings
from cgankd.core.errors import UserError
from cgankd.core.hashing import describe
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.metrics import robustness
from cgankd.metrics.robustness import Attack
from cgankd.tasks import Classification, Regression, Task
from works import stopped_at_every_save

FOUR = Classification(("a", "b", "c", "d"))
DEGREES = Regression(0.0, 90.0, "degrees")
EPS = 0.01
PIXELS = 256


def pictures(count: int, labels: torch.Tensor) -> ImageSet:
    rng = torch.Generator().manual_seed(1)
    return ImageSet(torch.randint(0, 256, (count, 1, 16, 16), generator=rng, dtype=torch.uint8), labels)


def linear(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, outputs))


def worst_margin(network: nn.Module, image: np.ndarray, label: int) -> float:
    """The least by which the label's logit can lead all others within the box: linear, so end by end."""
    weight, bias = (value.detach().double().numpy() for value in network[1].parameters())
    low, high = np.maximum(image - EPS, 0.0), np.minimum(image + EPS, 1.0)
    leads = []
    for other in range(len(bias)):
        if other != label:
            slope = weight[label] - weight[other]
            leads.append(bias[label] - bias[other] + np.where(slope > 0, slope * low, slope * high).sum())
    return min(leads)


def four(count: int = 60) -> tuple[nn.Module, ImageSet, float, float]:
    """A network, images it is mostly right about, its accuracy on them and the share that no attack can change."""
    network, made = linear(4), pictures(count, torch.zeros(count, dtype=torch.int64))
    with torch.no_grad():
        labels = network(made.images / 255.0).argmax(dim=1)
    labels[:6] = (labels[:6] + 1) % 4  # wrong from the start
    flat = made.images.double().flatten(1).numpy() / 255.0
    held = [worst_margin(network, image, int(label)) > 0 for image, label in zip(flat, labels, strict=True)]
    return network, ImageSet(made.images, labels), 100 * (count - 6) / count, 100 * float(np.mean(held))


def attacked(network: nn.Module, shown: ImageSet, task: Task, fabric: Fabric, attack: str, **more: int) -> dict:
    settings = RobustnessSettings(eps=EPS, attacks=(attack,), **more)
    return robustness.measure(Work(fabric), network, shown, task, Attack.of(settings, attack), seed=0)


@pytest.mark.long
def test_accuracy_under_autoattack_is_the_exact_share_that_no_attack_can_change(fabric: Fabric) -> None:
    pytest.importorskip("pyautoattack")
    network, images, clean, held = four()
    assert 15 < held < clean - 15  # so that there is something to find, and something to miss
    before = torch.random.get_rng_state()
    found = attacked(network, images, FOUR, fabric, "autoattack")
    assert found == {"images": 60, "clean": pytest.approx(clean), "attacked": pytest.approx(held)}
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())


def test_pgd_lies_between_clean_and_exact(fabric: Fabric) -> None:
    network, images, clean, held = four()
    found = attacked(network, images, FOUR, fabric, "pgd")
    assert found["clean"] == pytest.approx(clean)
    assert held - 1e-9 <= found["attacked"] < (clean + held) / 2


def test_a_killed_attack_goes_on(fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "BATCH", 20)
    network, images, _, _ = four()
    attack = Attack.of(RobustnessSettings(eps=EPS, attacks=("pgd",)), "pgd")

    def measure(work: Work) -> dict:
        return robustness.measure(work, network, images, FOUR, attack, seed=0)

    whole = measure(Work(fabric))
    parts, calls = stopped_at_every_save(fabric, tmp_path, measure)
    assert calls == 4
    assert parts == whole


def test_a_scalar_s_error_under_attack_is_exact(fabric: Fabric) -> None:
    # Of a linear network the error is worst at one end of the box or at the other.
    network, count = linear(1), 40
    with torch.no_grad():
        network[1].bias.fill_(0.5)
    rng = torch.Generator().manual_seed(2)
    images = pictures(count, (90 * torch.rand(count, generator=rng)).float())
    weight, bias = (value.detach().double().numpy() for value in network[1].parameters())
    flat = images.images.double().flatten(1).numpy() / 255.0
    worst, clean = [], []
    for image, label in zip(flat, images.labels.tolist(), strict=True):
        ends = (np.maximum(image - EPS, 0.0), np.minimum(image + EPS, 1.0))
        outputs = [float(weight[0] @ image + bias[0])]
        outputs += [float(np.where(weight[0] > 0, *side) @ weight[0] + bias[0]) for side in (ends, ends[::-1])]
        errors = [abs(90 * min(max(output, 0.0), 1.0) - label) for output in outputs]
        clean.append(errors[0])
        worst.append(max(errors))
    found = attacked(network, images, DEGREES, fabric, "pgd")
    assert found["clean"] == pytest.approx(np.mean(clean), abs=1e-3)
    assert np.mean(worst) > np.mean(clean) + 1
    # PGD climbs from where it starts: an image whose target lies inside the box's reach may stop at the wrong end.
    assert np.mean(worst) - 0.5 < found["attacked"] <= np.mean(worst) + 1e-3


def test_all_networks_are_attacked_on_the_same_random_images(fabric: Fabric) -> None:
    labels = torch.arange(300) % 4
    images = pictures(300, labels)
    images.images[labels == 3] = 0
    images = images.take(labels.argsort(stable=True))  # of the first 80 nearly all would be right

    class Black(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, shown: torch.Tensor) -> torch.Tensor:
            black = (shown.flatten(1).mean(dim=1) < 0.1).float()
            return self.scale * torch.stack([1 - black, 0 * black, 0 * black, black], dim=1) + 0 * shown.sum()

    found = [attacked(Black(), images, FOUR, fabric, "pgd", images=80, steps=1) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0]["images"] == 80
    assert 30 < found[0]["clean"] < 70  # of classes 0 and 3, half of all images


@pytest.mark.parametrize(
    ("task", "found"), [(DEGREES, "a number in degrees"), (Classification(("a", "b", "c")), "3 classes")]
)
def test_autoattack_is_refused_where_its_losses_have_no_meaning(task: Task, found: str) -> None:
    with pytest.raises(UserError, match=f"holds autoattack.*4 classes or more.*{found}; allowed: pgd"):
        robustness.check(RobustnessSettings(attacks=("pgd", "autoattack")), task)
    robustness.check(RobustnessSettings(attacks=("pgd",)), task)


def test_a_score_depends_on_its_own_attack_s_settings_alone() -> None:
    pytest.importorskip("pyautoattack")

    def changed(attack: str, **more: float) -> bool:
        before, after = RobustnessSettings(), RobustnessSettings(**more)
        return describe(Attack.of(before, attack)) != describe(Attack.of(after, attack))

    for attack in ("pgd", "autoattack"):
        assert changed(attack, eps=0.2)
        assert changed(attack, images=7)
        assert not changed(attack, attacks=("autoattack", "pgd"))
        assert changed(attack, steps=7) is changed(attack, step_size=0.1) is (attack == "pgd")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError, match=r"needs pyautoattack.*pip install 'cgankd\[robust\]'"):
        robustness.check(RobustnessSettings(attacks=("autoattack",)), FOUR)
    robustness.check(RobustnessSettings(), FOUR)
