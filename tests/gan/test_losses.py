"""Losses and regularisers by hand: weights count, and the mean is over the batch, not over the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cgankd.gan.losses import (
    LeCam,
    discriminator_hinge,
    discriminator_vanilla,
    generator_hinge,
    generator_vanilla,
    mode_seeking,
    squared_gradient,
)

REAL, FAKE = torch.tensor([0.5, 2.0, -1.0, 1.0]), torch.tensor([-2.0, 0.0, 1.0, -0.5])


def test_discriminator_hinge_by_hand() -> None:
    # real: .5, 0, 2, 0 -> 2.5 / 4; fake: 0, 1, 2, .5 -> 3.5 / 4
    assert float(discriminator_hinge(REAL, FAKE)) == pytest.approx(6.0 / 4)


def test_weights_multiply_and_are_not_divided_out() -> None:
    real_weight, fake_weight = torch.tensor([0.5, 1.0, 0.25, 1.0]), torch.tensor([1.0, 0.1, 0.5, 0.2])
    # real: .25 + 0 + .5 + 0; fake: 0 + .1 + 1 + .1
    found = float(discriminator_hinge(REAL, FAKE, real_weight, fake_weight))
    assert found == pytest.approx(0.75 / 4 + 1.2 / 4)
    weighted_mean = 0.75 / 2.75 + 1.2 / 1.8
    assert abs(found - weighted_mean) > 0.1
    halved = discriminator_hinge(REAL, FAKE, real_weight / 2, fake_weight / 2)
    assert float(halved) == pytest.approx(found / 2)  # a weighted mean would not have changed


def test_one_sided_weights() -> None:
    ones, half = torch.ones(4), torch.full((4,), 0.5)
    assert float(discriminator_hinge(REAL, FAKE, half, None)) == pytest.approx(1.25 / 4 + 3.5 / 4)
    assert float(discriminator_hinge(REAL, FAKE, None, half)) == pytest.approx(2.5 / 4 + 1.75 / 4)
    assert float(discriminator_hinge(REAL, FAKE, ones, ones)) == float(discriminator_hinge(REAL, FAKE))


def test_discriminator_gradient_pushes_real_up_and_fake_down_within_the_margin() -> None:
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    discriminator_hinge(real, fake).backward()
    assert real.grad.tolist() == [-0.25, 0.0, -0.25, 0.0]
    assert fake.grad.tolist() == [0.0, 0.25, 0.25, 0.25]


def test_generator_hinge_is_minus_the_mean() -> None:
    fake = FAKE.clone().requires_grad_()
    loss = generator_hinge(fake)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.5 / 4)
    assert fake.grad.tolist() == [-0.25] * 4  # no margin: it goes on where D is already fooled


def test_vanilla_is_the_cross_entropy_of_real_and_fake() -> None:
    def log_sigmoid(x: float) -> float:
        return -math.log(1 + math.exp(-x))

    real = [-log_sigmoid(x) for x in REAL.tolist()]
    fake = [-log_sigmoid(-x) for x in FAKE.tolist()]  # 1 - sigmoid(x) = sigmoid(-x)
    assert float(discriminator_vanilla(REAL, FAKE)) == pytest.approx((sum(real) + sum(fake)) / 4, rel=1e-6)
    w, v = [0.5, 1.0, 0.25, 1.0], [1.0, 0.1, 0.5, 0.2]
    by_hand = sum(a * b for a, b in zip(w, real, strict=True)) + sum(a * b for a, b in zip(v, fake, strict=True))
    found = discriminator_vanilla(REAL, FAKE, torch.tensor(w), torch.tensor(v))
    assert float(found) == pytest.approx(by_hand / 4, rel=1e-6)
    expected = -sum(log_sigmoid(x) for x in FAKE.tolist()) / 4
    assert float(generator_vanilla(FAKE)) == pytest.approx(expected, rel=1e-6)


def test_vanilla_stays_finite_and_does_not_saturate() -> None:
    lost = torch.tensor([-200.0, -200.0], requires_grad=True)  # D is sure that both are fake
    loss = generator_vanilla(lost)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(200.0)
    assert lost.grad.tolist() == [-0.5, -0.5]
    assert float(discriminator_vanilla(torch.tensor([-300.0]), torch.tensor([300.0]))) == pytest.approx(600.0)


class Quadratic(nn.Module):
    """D(x, y) = y sum(a x^2), whose gradient in x is 2 y a x."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        return targets * (self.a * images.square()).sum(dim=(1, 2, 3))


def test_squared_gradient_of_a_quadratic_and_its_own_gradient() -> None:
    torch.manual_seed(0)
    a, x, y = torch.rand(2, 3, 3) + 0.5, torch.randn(5, 2, 3, 3), torch.rand(5) + 1
    discriminator = Quadratic(a)
    penalty = squared_gradient(discriminator, x, y)
    # ||2 y a x||^2, and its derivative in a: 8 y^2 a x^2
    expected = torch.stack([(2 * y[i] * a * x[i]).square().sum() for i in range(5)]).mean()
    assert float(penalty.detach()) == pytest.approx(float(expected), rel=1e-5)
    penalty.backward()
    derivative = torch.stack([8 * y[i] ** 2 * a * x[i] ** 2 for i in range(5)]).mean(dim=0)
    assert torch.allclose(discriminator.a.grad, derivative, rtol=1e-4)


def test_lecam_by_hand_over_two_batches() -> None:
    lecam = LeCam()
    real, fake = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([-2.0, 0.0])
    # averages: 2 and -1. real to -1: 4, 16 -> 10; fake to 2: 16, 4 -> 10
    loss = lecam(real, fake)
    assert float(loss.detach()) == pytest.approx(20.0)
    loss.backward()
    assert real.grad.tolist() == [2.0, 4.0]  # the averages have no gradient
    # averages: .99 * 2 + .01 * 4 = 2.02 and .99 * -1 + .01 * 1 = -.98; 4.98^2 and 1.02^2
    assert float(lecam(torch.tensor([4.0]), torch.tensor([1.0]))) == pytest.approx(4.98**2 + 1.02**2, rel=1e-5)
    again = LeCam()
    again.load_state_dict(lecam.state_dict())
    batch = torch.tensor([0.3]), torch.tensor([0.2])
    assert float(again(*batch)) == float(lecam(*batch))
    assert float(lecam.real) == pytest.approx(0.99 * 2.02 + 0.01 * 0.3)


def test_mode_seeking_by_hand() -> None:
    images, z = torch.zeros(2, 1, 2, 2), torch.zeros(2, 4)
    others, other_z = images.clone(), z.clone()
    others[0] += 0.5  # apart by .5, their latents by .25
    other_z[0, 0] = 1.0
    others[1, 0, 0, 0] = -2.0  # apart by .5 over four pixels, their latents by 2
    other_z[1] = -2.0
    assert float(mode_seeking(images, others, z, other_z)) == pytest.approx(1 / ((2 + 0.25) / 2), rel=1e-4)


def test_mode_seeking_of_equal_images_is_finite_and_others_push_apart() -> None:
    images = torch.rand(3, 1, 4, 4)
    others = (images + 0.01).requires_grad_()
    z, other_z = torch.randn(2, 3, 5).unbind()
    mode_seeking(images, others, z, other_z).backward()
    assert others.grad is not None
    assert bool((others.grad < 0).all())  # a step against it moves them further away
    assert math.isfinite(float(mode_seeking(images, images, z, other_z)))
