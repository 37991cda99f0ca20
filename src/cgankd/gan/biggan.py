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
from cgankd.gan.residual import Maps, ProjectionDiscriminator, ResidualGenerator


class Generator(ResidualGenerator):
    """z is cut into parts: the first map is computed from one; the norms of each block get one and the label.

    All parts are of equal length, or the first ones are longer by one. The embedding is scaled so that its norm is
    similar to that of the part beside it. Raises UserError where z is shorter than the number of parts.
    """

    def __init__(self, embedding: nn.Module, maps: Maps, latent: int, *, shared: bool = True) -> None:
        count, (height, width) = 1 + len(maps.widths), maps.size
        if latent < count:
            raise UserError(
                f"generator.latent is {latent}; biggan cuts it into {count} parts at {width}x{height} pixels, "
                f"so {count} or more are needed"
            )
        parts = [latent // count + (number < latent % count) for number in range(count)]
        super().__init__(
            embedding,
            maps,
            parts[0],
            [part + maps.label_dim for part in parts[1:]],
            2 * len(maps.widths),
            wrap=spectral_norm,
            wrap_norm=spectral_norm,
            shared=shared,
        )
        self.parts = parts
        self.label_scales = [(part / maps.label_dim) ** 0.5 for part in parts[1:] for _ in range(2)]  # two norms each
        initialise(self, nn.init.orthogonal_, nn.Conv2d)
        for part in (self.first, self.blocks):  # not the layers of the embedding: they may be trained already
            initialise(part, nn.init.orthogonal_, nn.Linear)

    def conditions(self, z: Tensor, labels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        first, *others = z.split(self.parts, dim=1)
        labels = labels if len(labels) > 1 else labels * self.places
        beside = [part for part in others for _ in range(2)]
        scaled = [label * scale for label, scale in zip(labels, self.label_scales, strict=True)]
        return first, [torch.cat(pair, dim=1) for pair in zip(beside, scaled, strict=True)]


class Discriminator(ProjectionDiscriminator):
    """Residual blocks, of which the last keeps the map's size."""

    def __init__(self, embedding: nn.Module, maps: Maps, pooling: str, heads: Sequence[str] = ()) -> None:
        widths = maps.widths
        blocks = [
            DownBlock(maps.channels, widths[0], down=True, on_image=True),
            *(DownBlock(a, b, down=True) for a, b in itertools.pairwise(widths)),
            DownBlock(widths[-1], widths[-1], down=False),
        ]
        super().__init__(embedding, blocks, maps, pooling, heads)
        for part in (self.blocks, self.linear, self.projection):
            initialise(part, nn.init.orthogonal_, nn.Conv2d, nn.Linear)
