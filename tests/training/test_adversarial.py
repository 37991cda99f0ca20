"""PGD against the known optimum of linear networks, and what training on attacked images sees."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import distill
from cgankd.config.settings import AdversarialSettings, AttackSettings, AugmentSettings, FitSettings
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.tasks import CircularRegression, Classification, Regression, Task
from cgankd.training.adversarial import pgd
from cgankd.training.loop import fit

SCALAR = Regression(0.0, 1.0)
Noise = Callable[..., ImageSet]


def classes(count: int) -> Classification:
    return Classification(tuple("abcdefgh"[:count]))


def linear(outputs: int, pixels: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, outputs))


def images(count: int, side: int = 3, channels: int = 2) -> Tensor:
    """With some pixels at the ends of [0, 1], where an attack has room on one side only."""
    rng = torch.Generator().manual_seed(5)
    return (1.4 * torch.rand(count, channels, side, side, generator=rng) - 0.2).clamp(0, 1)


def moved(network: nn.Module, shown: Tensor, targets: Tensor, task: Task, seed: int = 0, **more: Any) -> Tensor:
    settings = AttackSettings(**{"eps": 0.1, "steps": 12, **more})
    return pgd(network, shown, targets, task, settings, seed=seed, index=torch.arange(len(shown)))


@pytest.mark.parametrize(("target", "sign"), [(-10.0, 1.0), (10.0, -1.0)])
def test_a_linear_regressor_s_worst_image_is_known(target: float, sign: float) -> None:
    network, shown = linear(1, 18), images(6)
    weight = network[1].weight.detach().view(2, 3, 3)
    found = moved(network, shown, torch.full((6,), target), SCALAR)
    expected = (shown + 0.1 * sign * weight.sign()).clamp(0, 1)  # the output goes away from the target everywhere
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_linear_classifier_s_worst_image_is_known() -> None:
    network, shown, targets = linear(2, 18), images(8), torch.arange(8) % 2
    weight = network[1].weight.detach()
    away = (weight[1 - targets] - weight[targets]).view(-1, 2, 3, 3)  # where the other class gains
    expected = (shown + 0.1 * away.sign()).clamp(0, 1)
    assert torch.allclose(moved(network, shown, targets, classes(2)), expected, atol=1e-6)


def test_a_label_that_wraps_is_attacked_by_its_angle() -> None:
    # One pixel moves the cosine, the other the sine, which are (0.9, 0.05) at first. For the label 0 a longer cosine
    # also raises the squared distance of the points, but the angle rises where the cosine is shorter.
    network, shown = linear(2, 2), torch.full((40, 2, 1, 1), 0.5)
    with torch.no_grad():
        network[1].weight.copy_(5.0 * torch.eye(2))
        network[1].bias.copy_(torch.tensor([0.9, 0.05]) - 2.5)
    found = moved(network, shown, torch.zeros(40), CircularRegression(), eps=0.04)
    assert torch.allclose(found[:, 0], torch.tensor(0.46), atol=1e-6)
    sine = (found[:, 1] - 0.5).flatten()  # either way from where the random start puts it
    assert torch.allclose(sine.abs(), torch.tensor(0.04), atol=1e-6)


def test_of_three_classes_the_best_of_some_starts_is_the_best_corner() -> None:
    # The cross-entropy of linear logits is convex: its largest value in a box is at one of the box's corners.
    network, shown, targets, eps = linear(3, 4, seed=3), images(5, 2, 1), torch.arange(5) % 3, 0.4
    weight, bias = (value.detach().double().numpy() for value in network[1].parameters())

    def loss(pixels: np.ndarray, target: int) -> float:
        logits = weight @ pixels + bias
        return float(np.log(np.exp(logits).sum()) - logits[target])

    starts = [moved(network, shown, targets, classes(3), seed=seed, eps=eps) for seed in range(6)]
    for row, target in enumerate(targets.tolist()):
        pixels = shown[row].double().flatten().numpy()
        ends = [(max(0.0, pixel - eps), min(1.0, pixel + eps)) for pixel in pixels]
        best = max(loss(np.array(corner), target) for corner in itertools.product(*ends))
        found = [loss(start[row].double().flatten().numpy(), target) for start in starts]
        assert max(found) == pytest.approx(best, abs=1e-5)
        assert min(found) > loss(pixels, target)


def test_the_start_is_uniform_within_eps_and_depends_on_seed_and_image_alone() -> None:
    class Flat(nn.Module):
        def forward(self, shown: Tensor) -> Tensor:
            return 0.0 * shown.flatten(1).sum(dim=1, keepdim=True)  # no gradient: nothing but the start is seen

    shown = torch.full((40, 1, 16, 16), 0.5)
    settings, targets, index = AttackSettings(eps=0.2, steps=1), torch.ones(40), torch.arange(40)
    found = pgd(Flat(), shown, targets, SCALAR, settings, seed=1, index=index)
    off = (found - 0.5).flatten().sort().values.double().numpy()
    uniform = np.linspace(-0.2, 0.2, len(off))
    assert np.abs(off - uniform).max() < 0.4 * 1.95 / np.sqrt(len(off))  # Kolmogorov-Smirnov, p = .001
    part = pgd(Flat(), shown[7:9], targets[7:9], SCALAR, settings, seed=1, index=index[7:9])
    assert torch.equal(part, found[7:9])
    other = pgd(Flat(), shown, targets, SCALAR, settings, seed=2, index=index)
    assert not torch.isclose(other, found).any(dim=3).all()


def test_a_step_goes_as_far_as_it_is_told() -> None:
    network, shown, targets = linear(1, 18), torch.full((4, 2, 3, 3), 0.5), torch.full((4,), -10.0)
    one, two = (moved(network, shown, targets, SCALAR, steps=steps, step_size=0.01, eps=0.3) for steps in (1, 2))
    weight = network[1].weight.detach().view(2, 3, 3)
    inside = (two - shown).abs() < 0.3 - 1e-6
    assert inside.float().mean() > 0.8
    assert torch.allclose((two - one)[inside], (0.01 * weight.sign()).expand_as(two)[inside], atol=1e-6)
    assert AttackSettings(eps=0.2, steps=10).step == pytest.approx(0.05)


def test_nothing_leaves_the_box_and_weights_stay() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 9), nn.Tanh(), nn.Linear(9, 4))
    shown = images(12)
    found = moved(network, shown, torch.arange(12) % 4, classes(4), eps=0.25, steps=5)
    assert not found.requires_grad
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert float((found - shown).abs().max()) <= 0.25 + 1e-6
    assert all(weight.grad is None for weight in network.parameters())


# --- training -----------------------------------------------------------------------------------------------------


class Spy(nn.Module):
    """A linear network that notes the images it is trained on, its weights then, and how often it is attacked."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear(1, 256)
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.attacked = 0

    def forward(self, shown: Tensor) -> Tensor:
        if self.training:
            self.seen.append((shown.detach().clone(), self.linear[1].weight.detach().clone()))
        else:
            self.attacked += 1
        return self.linear(shown)


def test_training_sees_each_batch_attacked_by_the_weights_of_its_step(noise: Noise, fabric: Fabric) -> None:
    real, chosen = noise(16, scalar=True), AdversarialSettings(eps=0.02, steps=4)
    settings = FitSettings(steps=3, batch_size=8, learning_rate=0.001, adversarial=chosen)
    spy = Spy()
    with torch.no_grad():
        spy.linear[1].bias.fill_(20.0)  # far above all targets: what is worst goes up
    fit(Work(fabric), spy, distill.create("supervised", SCALAR), TrainingImages(real), settings, seed=4)
    assert spy.attacked == 3 * 4
    batches = Batches(TrainingImages(real), SCALAR, 8, AugmentSettings(), 4, fabric.device)
    for step, (shown, weight) in enumerate(spy.seen):
        clean = batches.at(step).images
        assert torch.allclose(shown, (clean + 0.02 * weight.view(1, 16, 16).sign()).clamp(0, 1), atol=1e-6)
    weights = [weight for _, weight in spy.seen]
    assert len(weights) == 3
    assert not torch.equal(weights[0], weights[2])


def test_starts_differ_from_step_to_step(noise: Noise, fabric: Fabric) -> None:
    # One tiny step from a random start: what is left is the start.
    chosen = AdversarialSettings(eps=0.02, steps=1, step_size=1e-6)
    real = ImageSet(torch.full((8, 1, 16, 16), 128, dtype=torch.uint8), torch.zeros(8))
    settings = FitSettings(steps=2, batch_size=8, augment=AugmentSettings(shift=0), adversarial=chosen)
    spy = Spy()
    fit(Work(fabric), spy, distill.create("supervised", SCALAR), TrainingImages(real), settings, seed=4)
    first, second = (shown for shown, _ in spy.seen)
    assert float((first - second).abs().mean()) == pytest.approx(2 * 0.02 / 3, rel=0.1)  # of two uniform numbers


def test_a_teacher_is_not_asked_about_attacked_images(noise: Noise, fabric: Fabric) -> None:
    settings = FitSettings(steps=1, batch_size=8, adversarial=AdversarialSettings())
    method = distill.create("kd", classes(3))
    with pytest.raises(UserError, match=r"fit\.adversarial is set, but method 'kd' asks the teacher.*allowed"):
        fit(Work(fabric), linear(3, 256), method, TrainingImages(noise(8)), settings, seed=0, teacher=linear(3, 256))
