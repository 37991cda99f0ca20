"""Wide residual networks, ``wrn_16_1`` to ``wrn_40_2``: the name says depth and widening factor.

Zagoruyko and Komodakis, Wide Residual Networks (arXiv 1605.07146): pre-activation blocks, no dropout.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.nets.layers import Normalise, block_sequence, conv3x3, initialise
from cgankd.nets.registry import register


class PreActBlock(nn.Module):
    """conv(relu(bn(conv(a)))) + shortcut, with a = relu(bn(x)): [B, in, H, W] to [B, out, H/stride, W/stride].

    The shortcut is x itself, or a 1x1 convolution of a if the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + (x if self.shortcut is None else self.shortcut(active))


@register("wrn_16_1", depth=16, widening=1)
@register("wrn_16_2", depth=16, widening=2)
@register("wrn_40_1", depth=40, widening=1)
@register("wrn_40_2", depth=40, widening=2)
class WideResNet(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs]; ``depth`` is 6n + 4.

    The maps of ``block1`` to ``block3`` have 1, 1/2 and 1/4 of the image's side and are taken before activation.
    """

    stage_names = ("block1", "block2", "block3")

    def __init__(
        self, in_channels: int, num_outputs: int, image_size: tuple[int, int], depth: int, widening: int
    ) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        widths = (16 * widening, 32 * widening, 64 * widening)
        self.normalise = Normalise(in_channels)
        self.conv1 = conv3x3(in_channels, 16)
        self.block1 = block_sequence(PreActBlock, blocks, 16, widths[0], stride=1)
        self.block2 = block_sequence(PreActBlock, blocks, widths[0], widths[1], stride=2)
        self.block3 = block_sequence(PreActBlock, blocks, widths[1], widths[2], stride=2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(self.normalise(images))
        x = self.block3(self.block2(self.block1(x)))
        outputs: Tensor = self.fc(F.relu(self.bn1(x)).mean((2, 3)))
        return outputs
