"""``efficientnet_b0``: EfficientNet-B0 with a stem for small images, and the parts that its Lite variant shares.

Tan and Le, EfficientNet (arXiv 1905.11946, table 1), with a stride of 1 instead of 2 in the first convolution.
Stochastic depth and dropout are the paper's, 0.2 each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cgankd.nets.layers import Normalise, conv_bn, initialise
from cgankd.nets.registry import register

SEQUENCES = (  # expansion, channels, blocks, kernel, stride of the first block
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
STEM, HEAD = 32, 1280  # channels
# Probability, for an input of the last layer and for the last block; over the blocks it rises linearly from 0.
DROP = 0.2


@dataclasses.dataclass(frozen=True)
class Design:
    """The differences between networks with the same :data:`SEQUENCES` of blocks."""

    stem_stride: int = 1
    activation: Callable[[], nn.Module] = nn.SiLU
    squeeze: bool = True  # squeeze and excite in every block
    conv: Callable[..., list[nn.Module]] = conv_bn  # (in_channels, out_channels, kernel=, stride=, groups=)


class SqueezeExcite(nn.Module):
    """x times a gate in (0, 1) for each channel, computed from the map's mean: [B, C, H, W] to the same shape."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.gate(x.mean((2, 3), keepdim=True))
        return gated


class MBConv(nn.Module):
    """Expand 1x1, depthwise, squeeze and excite, project 1x1 without activation; plus x if the shape stays the same.

    [B, in, H, W] to [B, out, H/stride, W/stride]. Stochastic depth (arXiv 1603.09382): in training, the convolutions of
    a block with a shortcut are skipped for an image with probability ``drop``, and otherwise scaled by 1 / (1 - drop).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        expansion: int,
        drop: float,
        design: Design,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.residual, self.drop = stride == 1 and in_channels == out_channels, drop
        expand = [*design.conv(in_channels, hidden, kernel=1), design.activation()] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            *design.conv(hidden, hidden, kernel=kernel, stride=stride, groups=hidden),
            design.activation(),
            *([SqueezeExcite(hidden, in_channels // 4)] if design.squeeze else []),
            *design.conv(hidden, out_channels, kernel=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        if not self.residual:
            return out
        if self.training and self.drop > 0:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            out = out * kept / (1 - self.drop)
        return x + out


@register("efficientnet_b0")
class EfficientNet(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs]; the last map has 1/16 of the image's side.

    The maps are the outputs of the linear 1x1 convolutions, without activation.
    """

    stage_names = ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6")

    def __init__(
        self, in_channels: int, num_outputs: int, image_size: tuple[int, int], design: Design = Design()
    ) -> None:
        super().__init__()
        self.normalise = Normalise(in_channels)
        self.conv1 = nn.Sequential(
            *design.conv(in_channels, STEM, kernel=3, stride=design.stem_stride), design.activation()
        )
        self.blocks = nn.Sequential()
        channels, built, total = STEM, 0, sum(blocks for _, _, blocks, _, _ in SEQUENCES)
        for expansion, out_channels, count, kernel, stride in SEQUENCES:
            sequence = nn.Sequential()
            for number in range(count):
                first_stride, drop = stride if number == 0 else 1, DROP * built / total
                sequence.append(MBConv(channels, out_channels, kernel, first_stride, expansion, drop, design))
                channels, built = out_channels, built + 1
            self.blocks.append(sequence)
        self.conv2 = nn.Sequential(*design.conv(channels, HEAD, kernel=1), design.activation())
        self.dropout = nn.Dropout(DROP)
        self.classifier = nn.Linear(HEAD, num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv2(self.blocks(self.conv1(self.normalise(images))))
        outputs: Tensor = self.classifier(self.dropout(x.mean((2, 3))))
        return outputs
