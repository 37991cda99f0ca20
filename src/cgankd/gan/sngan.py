"""SNGAN: residual generator with conditional batch norm, spectrally normalised projection discriminator.

Miyato et al., "Spectral Normalization for GANs" (arXiv 1802.05957) and Miyato and Koyama, "cGANs with Projection
Discriminator" (arXiv 1802.05637). The smallest and fastest of the three GANs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.gan.blocks import DownBlock, Wrap, initialise, unwrapped
from cgankd.gan.residual import Maps, ProjectionDiscriminator, ResidualGenerator


class Generator(ResidualGenerator):
    """z and the label embedding enter the first map and every norm (as in BigGAN, arXiv 1809.11096).

    With z in the first map alone, a generator trained on little data gave one image per class. The embedding is
    scaled so that its norm is similar to that of z.
    """

    def __init__(
        self, embedding: nn.Module, maps: Maps, latent: int, *, shared: bool = True, wrap: Wrap = unwrapped
    ) -> None:
        dim, blocks = latent + maps.label_dim, len(maps.widths)
        super().__init__(embedding, maps, dim, [dim] * blocks, 1 + 2 * blocks, wrap=wrap, shared=shared)
        self.label_scale = (latent / maps.label_dim) ** 0.5
        initialise(self, nn.init.xavier_uniform_, nn.Conv2d)

    def conditions(self, z: Tensor, labels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        conditions = [torch.cat([z, label * self.label_scale], dim=1) for label in labels]
        first, *others = conditions if len(conditions) > 1 else conditions * self.places
        return first, others


class Discriminator(ProjectionDiscriminator):
    """A strided convolution, then residual blocks, of which the last keeps the map's size."""

    def __init__(self, embedding: nn.Module, maps: Maps, pooling: str, heads: Sequence[str] = ()) -> None:
        widths = maps.widths
        blocks = [
            spectral_norm(nn.Conv2d(maps.channels, widths[0], 4, stride=2, padding=1)),
            *(DownBlock(a, b, down=True) for a, b in itertools.pairwise(widths)),
            DownBlock(widths[-1], widths[-1], down=False),
        ]
        super().__init__(embedding, blocks, maps, pooling, heads)
