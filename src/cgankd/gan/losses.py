"""GAN losses, weighted per image where the vicinity is soft, and regularisers of both networks.

A weighted loss is divided by the batch size, not by the sum of the weights (as in CcGAN's soft vicinity). D(x_r) and
D(x_f) are logits [B] of real and fake images; weights are [B], or None for all 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 1e-5  # keeps the inverse finite where all images are alike


def discriminator_hinge(
    real: Tensor, fake: Tensor, real_weight: Tensor | None = None, fake_weight: Tensor | None = None
) -> Tensor:
    """mean(w_r max(0, 1 - D(x_r))) + mean(w_f max(0, 1 + D(x_f)))."""
    return _mean(F.relu(1.0 - real), real_weight) + _mean(F.relu(1.0 + fake), fake_weight)


def generator_hinge(fake: Tensor) -> Tensor:
    """-mean(D(x_f))."""
    return -torch.mean(fake)


def discriminator_vanilla(
    real: Tensor, fake: Tensor, real_weight: Tensor | None = None, fake_weight: Tensor | None = None
) -> Tensor:
    """-mean(w_r log s(D(x_r))) - mean(w_f log(1 - s(D(x_f)))), s = sigmoid (Goodfellow et al., arXiv 1406.2661)."""
    return _mean(F.softplus(-real), real_weight) + _mean(F.softplus(fake), fake_weight)


def generator_vanilla(fake: Tensor) -> Tensor:
    """-mean(log s(D(x_f))), the non-saturating form."""
    return F.softplus(-fake).mean()


def discriminator_relativistic(
    real: Tensor, fake: Tensor, real_weight: Tensor | None = None, fake_weight: Tensor | None = None
) -> Tensor:
    """mean(w_r w_f log(1 + exp(-(D(x_r) - D(x_f))))): image i of both batches has the same label.

    Jolicoeur-Martineau (arXiv 1807.00734); with R1 and R2 it is the loss of Huang et al., "The GAN is dead; long live
    the GAN!" (arXiv 2501.05441). The product of the vicinity's weights is [ours].
    """
    weights = [weight for weight in (real_weight, fake_weight) if weight is not None]
    return _mean(F.softplus(fake - real), math.prod(weights, start=torch.ones_like(real)) if weights else None)


def generator_relativistic(fake: Tensor, real: Tensor, real_weight: Tensor | None = None) -> Tensor:
    """mean(w_r log(1 + exp(-(D(x_f) - D(x_r))))): the fake is at the target label itself, so its weight is 1."""
    return _mean(F.softplus(real - fake), real_weight)


@dataclasses.dataclass(frozen=True)
class Loss:
    """discriminator: (real, fake, real_weight, fake_weight). generator: (fake), or if ``pairs`` (fake, real,
    real_weight)."""

    discriminator: Callable[..., Tensor]
    generator: Callable[..., Tensor]
    pairs: bool = False


LOSSES = {
    "hinge": Loss(discriminator_hinge, generator_hinge),
    "vanilla": Loss(discriminator_vanilla, generator_vanilla),
    "relativistic": Loss(discriminator_relativistic, generator_relativistic, pairs=True),
}


def squared_gradient(discriminator: Callable[[Tensor, Tensor], Tensor], images: Tensor, targets: Tensor) -> Tensor:
    """mean over the batch of ||grad_x D(x, y)||^2, which can itself be differentiated.

    R1 is gamma / 2 times this at real images, R2 at generated ones (Mescheder, Geiger and Nowozin, arXiv 1801.04406).
    """
    images = images.detach().requires_grad_()
    logits = discriminator(images, targets)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)  # D sees each image by itself
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def mode_seeking(images: Tensor, other_images: Tensor, z: Tensor, other_z: Tensor) -> Tensor:
    """1 / (mean_i(mean |x_i - x'_i| / mean |z_i - z'_i|) + LEAST): small where different latents give different images.

    images [P, C, H, W], z [P, L]: pairs with the same label. Mao et al., "Mode Seeking Generative Adversarial
    Networks for Diverse Image Synthesis" (arXiv 1903.05628). The paper maximises the ratio; the authors' code
    minimises its inverse, as here. [ours]: a ratio for each pair; theirs is one ratio of two batch means.
    """
    apart = (images - other_images).abs().mean(dim=(1, 2, 3)) / (z - other_z).abs().mean(dim=1)
    return 1.0 / (apart.mean() + LEAST)


class LeCam(nn.Module):
    """mean((D(x_r) - a_f)^2) + mean((D(x_f) - a_r)^2), a_r and a_f moving averages of D on real and fake images.

    Tseng et al., "Regularizing Generative Adversarial Networks under Limited Data" (arXiv 2104.03310), with their decay
    of 0.99. The first batch sets the averages. They are buffers, so that checkpoints hold them.
    """

    DECAY = 0.99

    real: Tensor
    fake: Tensor
    begun: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logits [B] of real and fake images; the averages are updated with them first."""
        with torch.no_grad():
            for average, logits in ((self.real, real), (self.fake, fake)):
                mean = logits.mean()
                average.copy_(torch.where(self.begun, torch.lerp(mean, average, self.DECAY), mean))
            self.begun.fill_(True)
        return (real - self.fake).square().mean() + (fake - self.real).square().mean()


def _mean(loss: Tensor, weight: Tensor | None) -> Tensor:
    return (loss if weight is None else loss * weight).mean()
