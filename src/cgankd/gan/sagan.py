"""SAGAN: SNGAN with self-attention in both networks and spectral norm in the generator too.

Zhang et al., "Self-Attention Generative Adversarial Networks" (arXiv 1805.08318). The cGAN-KD paper uses it for
steering angles and ages.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.gan import sngan
from cgankd.gan.residual import Maps


class Generator(sngan.Generator):
    """SNGAN's generator with spectral norm on all layers but those inside the conditional norms."""

    def __init__(self, embedding: nn.Module, maps: Maps, latent: int, *, shared: bool = True) -> None:
        super().__init__(embedding, maps, latent, shared=shared, wrap=spectral_norm)


Discriminator = sngan.Discriminator
