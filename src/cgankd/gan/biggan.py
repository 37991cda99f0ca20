"""BigGAN: hierarchical latents, orthogonal weights, self-attention, spectral norm everywhere.

Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (arXiv
1809.11096), section 3 and appendix B.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.core.errors import UserError
from cgankd.gan.blocks import DownBlock, initialise
from cgankd.gan.residual import ProjectionDiscriminator, ResidualGenerator


class Generator(ResidualGenerator):
    """z is cut into parts: one makes the first map, each block's norms get one and the label embedding.

    Parts are as long as each other, the first ones by one longer where that does not come out even. The embedding
    is scaled to the size of the part beside it. Raises UserError where z is shorter than the number of parts.
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
        attention: int | None,
        shared: bool = True,
    ) -> None:
        count = 1 + len(widths)
        if latent < count:
            raise UserError(
                f"generator.latent is {latent}; biggan cuts it into {count} parts at {size[1]}x{size[0]} pixels, "
                f"so {count} or more are needed"
            )
        parts = [latent // count + (number < latent % count) for number in range(count)]
        super().__init__(
            embedding, widths, parts[0], [part + label_dim for part in parts[1:]], 2 * len(widths), image_channels,
            size, wrap=spectral_norm, wrap_norm=spectral_norm, attention=attention, shared=shared,
        )  # fmt: skip
        self.parts = parts
        self.label_scales = [(part / label_dim) ** 0.5 for part in parts[1:] for _ in range(2)]  # two norms a block
        initialise(self, nn.init.orthogonal_, nn.Conv2d)
        for part in (self.first, self.blocks):  # not the embedding's layers: they may be trained
            initialise(part, nn.init.orthogonal_, nn.Linear)

    def conditions(self, z: Tensor, labels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        first, *others = z.split(self.parts, dim=1)
        labels = labels if len(labels) > 1 else labels * self.places
        beside = [part for part in others for _ in range(2)]
        scaled = [label * scale for label, scale in zip(labels, self.label_scales, strict=True)]
        return first, [torch.cat(pair, dim=1) for pair in zip(beside, scaled, strict=True)]


class Discriminator(ProjectionDiscriminator):
    """Residual blocks from the image on; the last one keeps its side. attention: level of the maps with it."""

    def __init__(
        self,
        embedding: nn.Module,
        widths: Sequence[int],
        label_dim: int,
        image_channels: int,
        size: tuple[int, int],
        pooling: str,
        *,
        attention: int | None,
    ) -> None:
        blocks = [
            DownBlock(image_channels, widths[0], down=True, on_image=True),
            *(DownBlock(a, b, down=True) for a, b in itertools.pairwise(widths)),
            DownBlock(widths[-1], widths[-1], down=False),
        ]
        super().__init__(embedding, blocks, widths, label_dim, image_channels, size, pooling, attention)
        for part in (self.blocks, self.linear, self.projection):
            initialise(part, nn.init.orthogonal_, nn.Conv2d, nn.Linear)
