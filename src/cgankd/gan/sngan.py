"""SNGAN: residual generator with conditional batch norm, spectrally normalised projection discriminator.

Miyato et al., "Spectral Normalization for GANs" (arXiv 1802.05957) and Miyato and Koyama, "cGANs with Projection
Discriminator" (arXiv 1802.05637), for any image side of 16 or more. The label comes in as an embedding [B, E], so
classes and scalars are the same to both networks.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class ConditionalNorm(nn.Module):
    """Batch norm whose scale and shift are linear in a condition vector."""

    def __init__(self, width: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.scale_shift = nn.Linear(condition_dim, 2 * width)
        nn.init.normal_(self.scale_shift.weight, std=0.02)
        nn.init.zeros_(self.scale_shift.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale_shift(condition)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), 1.0 + scale)


class UpBlock(nn.Module):
    """Twice the side: norm, ReLU, up, conv, norm, ReLU, conv, plus an upsampled 1x1 shortcut."""

    def __init__(self, width_in: int, width_out: int, condition_dim: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(width_in, condition_dim)
        self.norm2 = ConditionalNorm(width_out, condition_dim)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.shortcut = nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.norm1(x, condition)), scale_factor=2.0, mode="nearest")
        h = self.conv2(F.relu(self.norm2(self.conv1(h), condition)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest")


class Generator(nn.Module):
    """z [B, latent] and targets [B] -> images [B, C, H, W] in [-1, 1].

    z and the label embedding reach the first map and every norm (as in BigGAN, arXiv 1809.11096): with z at the
    first map alone, a generator short of data gave one image per class. The embedding is scaled to the size of z.
    """

    def __init__(
        self,
        embedding: nn.Module,
        channels: int,
        latent: int,
        label_dim: int,
        image_channels: int,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.label_scale = (latent / label_dim) ** 0.5
        self.size = size
        ups = up_blocks(size)
        self.start = (-(-size[0] // 2**ups), -(-size[1] // 2**ups))
        widths = [channels * min(2**power, 4) for power in reversed(range(ups + 1))]
        widths[0] = widths[1]  # as many channels at the smallest side as after the first block
        self.first = nn.Linear(latent + label_dim, widths[0] * self.start[0] * self.start[1])
        self.blocks = nn.ModuleList(
            UpBlock(width_in, width_out, latent + label_dim) for width_in, width_out in itertools.pairwise(widths)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = nn.Conv2d(widths[-1], image_channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, targets: Tensor) -> Tensor:
        condition = torch.cat([z, self.embedding(targets) * self.label_scale], dim=1)
        x = self.first(condition).unflatten(1, (-1, *self.start))
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, condition)
        x = torch.tanh(self.last(F.relu(self.norm(x))))
        top, left = (x.shape[2] - self.size[0]) // 2, (x.shape[3] - self.size[1]) // 2
        return x[:, :, top : top + self.size[0], left : left + self.size[1]]


class DownBlock(nn.Module):
    """ReLU, conv, ReLU, conv, halved (where ``down``), plus a 1x1 shortcut."""

    def __init__(self, width_in: int, width_out: int, down: bool) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(width_in, width_out, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(width_out, width_out, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(width_in, width_out, 1))
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(F.relu(x))))
        if self.down:  # halving before the 1x1 shortcut is the same as after, and cheaper
            return F.avg_pool2d(h, 2, ceil_mode=True) + self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True))
        return h + self.shortcut(x)


class Discriminator(nn.Module):
    """Images [B, C, H, W] in [-1, 1] and targets [B] -> logits [B].

    pooling: "sum" adds up the last map (projection discriminator), "flatten" keeps positions (CcGAN). The embedding
    is divided by sqrt(E), so that the label's term and the label-free term are of one size.
    """

    def __init__(
        self,
        embedding: nn.Module,
        channels: int,
        label_dim: int,
        image_channels: int,
        size: tuple[int, int],
        pooling: str,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.pooling = pooling
        self.label_scale = label_dim**-0.5
        self.stem = spectral_norm(nn.Conv2d(image_channels, channels, 4, stride=2, padding=1))
        widths = [channels * min(2**power, 4) for power in range(up_blocks(size))]
        self.blocks = nn.Sequential(
            *(DownBlock(a, b, down=True) for a, b in itertools.pairwise(widths)),
            DownBlock(widths[-1], widths[-1], down=False),
        )
        feature = widths[-1]
        if pooling == "flatten":
            with torch.no_grad():
                feature = self.blocks(self.stem(torch.zeros(1, image_channels, *size))).numel()
        self.linear = spectral_norm(nn.Linear(feature, 1))
        self.projection = spectral_norm(nn.Linear(label_dim, feature, bias=False))

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        h = F.relu(self.blocks(self.stem(images.contiguous(memory_format=torch.channels_last))))
        h = h.flatten(1) if self.pooling == "flatten" else h.sum(dim=(2, 3))
        label = self.projection(self.embedding(targets)) * self.label_scale
        return self.linear(h).squeeze(1) + (label * h).sum(dim=1)


def up_blocks(size: tuple[int, int]) -> int:
    """How often a side of at least 4 pixels is doubled to reach the image: 2 at 16, 3 at 32, 4 at 64."""
    blocks = 0
    while min(size) >= 4 * 2 ** (blocks + 1):
        blocks += 1
    return blocks
