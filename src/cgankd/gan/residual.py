"""The frame that all generators and discriminators share; sngan.py, sagan.py and biggan.py say what differs.

The label comes in as an embedding [B, E], so classes and scalars are the same to all networks.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.gan.blocks import SelfAttention, UpBlock, Wrap, start_size, unwrapped


class ResidualGenerator(nn.Module, ABC):
    """z [B, latent] and targets [B] -> images [B, C, H, W] in [-1, 1], for any image side of 16 or more.

    widths: of the maps from the largest to the smallest (``blocks.map_widths``). first_dim: length of what the
    first map is linear in. condition_dims: length of the condition of each block. attention: level that has it.

    places: where the label enters. shared False gives each place its own copy of the label embedding, to be learnt
    by itself. An embedding that does not learn (ILI) stays one: each norm has its own linear layer on it anyway.
    """

    def __init__(
        self,
        embedding: nn.Module,
        widths: Sequence[int],
        first_dim: int,
        condition_dims: Sequence[int],
        places: int,
        image_channels: int,
        size: tuple[int, int],
        *,
        wrap: Wrap = unwrapped,
        wrap_norm: Wrap = unwrapped,
        attention: int | None = None,
        shared: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        learns = any(parameter.requires_grad for parameter in embedding.parameters())
        self.places = places
        others = 0 if shared or not learns else places - 1
        self.other_embeddings = nn.ModuleList(copy.deepcopy(embedding) for _ in range(others))
        self.size, self.start = size, start_size(size)
        widths = [widths[-1], *reversed(widths)]  # as many channels at the smallest side as after the first block
        self.first = wrap(nn.Linear(first_dim, widths[0] * self.start[0] * self.start[1]))
        self.blocks = nn.ModuleList(
            UpBlock(width_in, width_out, dim, wrap, wrap_norm)
            for (width_in, width_out), dim in zip(itertools.pairwise(widths), condition_dims, strict=True)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = wrap(nn.Conv2d(widths[-1], image_channels, 3, padding=1))
        self.attention_after = None if attention is None else len(self.blocks) - attention  # blocks
        self.attention = None if self.attention_after is None else SelfAttention(widths[self.attention_after])

    @abstractmethod
    def conditions(self, z: Tensor, labels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What the first map is made of [B, first_dim], and the condition of each norm, two per block.

        labels: embeddings [B, E], one for each place, or a single one that all share.
        """

    def forward(self, z: Tensor, targets: Tensor) -> Tensor:
        labels = [embedding(targets) for embedding in (self.embedding, *self.other_embeddings)]
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


class ProjectionDiscriminator(nn.Module):
    """Images [B, C, H, W] in [-1, 1] and targets [B] -> logits [B].

    blocks: the images' way to the last map, with spectral norm; block number i makes the map of level i + 1.
    widths: of the maps from the largest to the smallest. attention: level with self-attention.
    pooling: "sum" adds the last map up (projection discriminator, Miyato and Koyama, arXiv 1802.05637), "flatten"
    keeps positions (CcGAN). The embedding is divided by sqrt(E), so that the label's term and the label-free term
    are of one size.
    """

    def __init__(
        self,
        embedding: nn.Module,
        blocks: Sequence[nn.Module],
        widths: Sequence[int],
        label_dim: int,
        image_channels: int,
        size: tuple[int, int],
        pooling: str,
        attention: int | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.pooling = pooling
        self.label_scale = label_dim**-0.5
        self.blocks = nn.Sequential(*blocks)
        if attention is not None:
            self.blocks.insert(attention, SelfAttention(widths[attention - 1]))
        feature = widths[-1]
        if pooling == "flatten":
            with torch.no_grad():
                feature = self.blocks(torch.zeros(1, image_channels, *size)).numel()
        self.linear = spectral_norm(nn.Linear(feature, 1))
        self.projection = spectral_norm(nn.Linear(label_dim, feature, bias=False))

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        h = F.relu(self.blocks(images.contiguous(memory_format=torch.channels_last)))
        h = h.flatten(1) if self.pooling == "flatten" else h.sum(dim=(2, 3))
        label = self.projection(self.embedding(targets)) * self.label_scale
        return self.linear(h).squeeze(1) + (label * h).sum(dim=1)
