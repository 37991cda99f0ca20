"""SNGAN: residual generator with conditional batch norm, spectrally normalised projection discriminator.

Miyato et al., "Spectral Normalization for GANs" (arXiv 1802.05957) and Miyato and Koyama, "cGANs with Projection
Discriminator" (arXiv 1802.05637). The smallest and fastest of the three.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.gan.blocks import DownBlock, Wrap, initialise, unwrapped
from cgankd.gan.residual import ProjectionDiscriminator, ResidualGenerator


class Generator(ResidualGenerator):
    """z and the label embedding reach the first map and every norm (as in BigGAN, arXiv 1809.11096).

    With z at the first map alone, a generator short of data gave one image per class. The embedding is scaled to
    the size of z.
    """

    def __init__(
        self,
        embedding: nn.Module,
        widths: Sequence[int],
        latent: int,
        label_dim: int,
        image_channels: int,
        size: tuple[int, int],
        *,
        shared: bool = True,
        wrap: Wrap = unwrapped,
        attention: int | None = None,
    ) -> None:
        dim = latent + label_dim
        super().__init__(
            embedding, widths, dim, [dim] * len(widths), 1 + 2 * len(widths), image_channels, size,
            wrap=wrap, attention=attention, shared=shared,
        )  # fmt: skip
        self.label_scale = (latent / label_dim) ** 0.5
        initialise(self, nn.init.xavier_uniform_, nn.Conv2d)

    def conditions(self, z: Tensor, labels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        made = [torch.cat([z, label * self.label_scale], dim=1) for label in labels]
        first, *others = made if len(made) > 1 else made * self.places
        return first, others


class Discriminator(ProjectionDiscriminator):
    """A strided first layer, then residual blocks; the last one keeps its side. attention: level that has it."""

    def __init__(
        self,
        embedding: nn.Module,
        widths: Sequence[int],
        label_dim: int,
        image_channels: int,
        size: tuple[int, int],
        pooling: str,
        *,
        attention: int | None = None,
    ) -> None:
        blocks = [
            spectral_norm(nn.Conv2d(image_channels, widths[0], 4, stride=2, padding=1)),
            *(DownBlock(a, b, down=True) for a, b in itertools.pairwise(widths)),
            DownBlock(widths[-1], widths[-1], down=False),
        ]
        super().__init__(embedding, blocks, widths, label_dim, image_channels, size, pooling, attention)
