"""The hinge losses by hand: weights count, and the mean is over the batch, not over the weights."""

from __future__ import annotations

import pytest
import torch

from cgankd.gan.losses import discriminator_hinge, generator_hinge

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
