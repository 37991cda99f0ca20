"""SAGAN: SNGAN with self-attention in both networks and spectral norm in the generator too.

Zhang et al., "Self-Attention Generative Adversarial Networks" (arXiv 1805.08318): every place of an image can see
every other. The paper's generators for steering angles and ages are of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.gan import sngan


class Generator(sngan.Generator):
    """attention: level of the maps with self-attention. The conditional norms' own layers have no spectral norm."""

    def __init__(
        self,
        embedding: nn.Module,
        widths: Sequence[int],
        latent: int,
        label_dim: int,
        image_channels: int,
        size: tuple[int, int],
        *,
        attention: int | None,
        shared: bool = True,
    ) -> None:
        super().__init__(
            embedding, widths, latent, label_dim, image_channels, size,
            shared=shared, wrap=spectral_norm, attention=attention,
        )  # fmt: skip


Discriminator = sngan.Discriminator
