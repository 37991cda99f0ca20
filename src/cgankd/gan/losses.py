"""GAN losses, with a weight per image where the vicinity is soft."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_hinge(
    real: Tensor, fake: Tensor, real_weight: Tensor | None = None, fake_weight: Tensor | None = None
) -> Tensor:
    """mean(w_r max(0, 1 - D(x_r))) + mean(w_f max(0, 1 + D(x_f))); logits [B], weights [B] or all 1.

    The mean is over the batch, not over the weights' sum (METHOD of CcGAN's soft vicinity).
    """
    real_loss, fake_loss = F.relu(1.0 - real), F.relu(1.0 + fake)
    if real_weight is not None:
        real_loss = real_loss * real_weight
    if fake_weight is not None:
        fake_loss = fake_loss * fake_weight
    return real_loss.mean() + fake_loss.mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """-mean(D(x_f)), logits [B]."""
    return -torch.mean(fake)
