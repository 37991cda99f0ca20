"""What all generators and discriminators share; sngan.py, sagan.py and biggan.py define their differences.

The networks take the label as an embedding [B, E], so they are the same for classes and scalars.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.gan.blocks import SelfAttention, UpBlock, Wrap, start_size, unwrapped


@dataclasses.dataclass(frozen=True)
class Maps:
    """The feature maps of a network, and what enters and leaves it.

    widths: channels of the maps from the largest to the smallest (``blocks.map_widths``). size: (H, W) of the images.
    channels: of the images. label_dim: E, the length of the label embedding. attention: the level with self-attention.
    """

    widths: Sequence[int]
    size: tuple[int, int]
    channels: int
    label_dim: int
    attention: int | None = None


class ResidualGenerator(nn.Module, ABC):
    """z [B, latent] and targets [B] -> images [B, C, H, W] in [-1, 1], for any image side of 16 or more.

    first_dim: length of the vector that the first map is computed from. condition_dims: length of the condition of
    each block.

    places: how often the label enters. With ``shared`` False each place has its own copy of the label embedding,
    which is trained apart. An embedding that is not trained (ILI) is always shared, because each norm has its own
    linear layer on it.
    """

    def __init__(
        self,
        embedding: nn.Module,
        maps: Maps,
        first_dim: int,
        condition_dims: Sequence[int],
        places: int,
        *,
        wrap: Wrap = unwrapped,
        wrap_norm: Wrap = unwrapped,
        shared: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        learns = any(parameter.requires_grad for parameter in embedding.parameters())
        self.places = places
        others = 0 if shared or not learns else places - 1
        self.other_embeddings = nn.ModuleList(copy.deepcopy(embedding) for _ in range(others))
        self.size, self.start = maps.size, start_size(maps.size)
        widths = [maps.widths[-1], *reversed(maps.widths)]  # the first map has as many channels as the second
        self.first = wrap(nn.Linear(first_dim, widths[0] * self.start[0] * self.start[1]))
        self.blocks = nn.ModuleList(
            UpBlock(width_in, width_out, dim, wrap, wrap_norm)
            for (width_in, width_out), dim in zip(itertools.pairwise(widths), condition_dims, strict=True)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = wrap(nn.Conv2d(widths[-1], maps.channels, 3, padding=1))
        self.attention_after = None if maps.attention is None else len(self.blocks) - maps.attention  # blocks
        self.attention = None if self.attention_after is None else SelfAttention(widths[self.attention_after])
        self.label_strength = 1.0  # the label embedding is multiplied by this; below 1 only during a transition

    @abstractmethod
    def conditions(self, z: Tensor, labels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The input of the first map [B, first_dim], and the condition of each norm, two per block.

        labels: embeddings [B, E], one for each place, or a single one that all places share.
        """

    def forward(self, z: Tensor, targets: Tensor) -> Tensor:
        labels = [embedding(targets) * self.label_strength for embedding in (self.embedding, *self.other_embeddings)]
        first, conditions = self.conditions(z, labels)
        x = self.first(first).unflatten(1, (-1, *self.start))
        x = x.contiguous(memory_format=torch.channels_last)
        for number, block in enumerate(self.blocks):
            if number == self.attention_after and self.attention is not None:
                x = self.attention(x)
            x = block(x, conditions[2 * number], conditions[2 * number + 1])
        x = torch.tanh(self.last(F.relu(self.norm(x))))
        top, left = (x.shape[2] - self.size[0]) // 2, (x.shape[3] - self.size[1]) // 2
        return x[:, :, top : top + self.size[0], left : left + self.size[1]]


class Verdict(NamedTuple):
    """What a discriminator says of B images.

    logits [B]: given the label. unconditional [B]: logits without any label; None: not asked for. label [B]: the
    scalar label that it reads in the image; None: not asked for.
    """

    logits: Tensor
    unconditional: Tensor | None = None
    label: Tensor | None = None

    @property
    def regularised(self) -> Tensor:
        """The logits that R1, R2 and LeCam act on: those without a label, if there are some, as in the published code
        of the transition. Before it, the loss reads no others."""
        return self.logits if self.unconditional is None else self.unconditional

    def each(self, change: Callable[[Tensor], Tensor]) -> Verdict:
        """The verdict with changed outputs."""
        return Verdict(*(None if part is None else change(part) for part in self))  # type: ignore[arg-type]

    def chunk(self, parts: int) -> list[Verdict]:
        """The verdicts on equal parts of the images."""
        split = [[None] * parts if part is None else part.chunk(parts) for part in self]
        return [Verdict(*part) for part in zip(*split, strict=True)]  # type: ignore[arg-type]


class ProjectionDiscriminator(nn.Module):
    """Images [B, C, H, W] in [-1, 1] and targets [B] -> logits [B].

    blocks: from the images to the last map, with spectral norm; block i makes the map of level i + 1.
    pooling: "sum" sums the last map over positions (projection discriminator, Miyato and Koyama, arXiv 1802.05637),
    "flatten" keeps positions (CcGAN). The embedding is divided by sqrt(E), so that the term with the label and the
    term without are of similar size. heads: further outputs, by the field of :class:`Verdict`.
    """

    def __init__(
        self, embedding: nn.Module, blocks: Sequence[nn.Module], maps: Maps, pooling: str, heads: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.pooling = pooling
        self.label_scale = maps.label_dim**-0.5
        self.blocks = nn.Sequential(*blocks)
        if maps.attention is not None:
            self.blocks.insert(maps.attention, SelfAttention(maps.widths[maps.attention - 1]))
        feature = maps.widths[-1]
        if pooling == "flatten":
            with torch.no_grad():
                feature = self.blocks(torch.zeros(1, maps.channels, *maps.size)).numel()
        self.linear = spectral_norm(nn.Linear(feature, 1))
        self.projection = spectral_norm(nn.Linear(maps.label_dim, feature, bias=False))
        self.unconditional = spectral_norm(nn.Linear(feature, 1)) if "unconditional" in heads else None
        self.label = nn.Linear(feature, 1) if "label" in heads else None

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        return self.verdict(images, targets).logits

    def verdict(self, images: Tensor, targets: Tensor) -> Verdict:
        """The logits, and the outputs of the further heads."""
        h = F.relu(self.blocks(images.contiguous(memory_format=torch.channels_last)))
        h = h.flatten(1) if self.pooling == "flatten" else h.sum(dim=(2, 3))
        label = self.projection(self.embedding(targets)) * self.label_scale
        logits = self.linear(h).squeeze(1) + (label * h).sum(dim=1)
        further = [None if head is None else head(h).squeeze(1) for head in (self.unconditional, self.label)]
        return Verdict(logits, *further)
