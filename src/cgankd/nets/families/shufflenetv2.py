"""``shufflenetv2``: ShuffleNet V2 of width 1, with a stem for small images.

Ma et al., ShuffleNet V2 (arXiv 1807.11164, table 5, 1x), with a 1x1 convolution in place of the 3x3 one of stride 2
and its max pooling (Tian et al., arXiv 1910.10699). Initial weights are torch's, as there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgankd.nets.layers import Normalise, block_sequence, channel_shuffle, conv_bn, conv_bn_relu
from cgankd.nets.registry import register

STEM = 24  # channels


class ShuffleUnit(nn.Module):
    """Two branches side by side, then shuffled: [B, in, H, W] to [B, out, H/stride, W/stride].

    At stride 1, where in = out, the first half of the channels passes unchanged, and the second goes through 1x1,
    depthwise 3x3 and 1x1 convolutions; at stride 2 each branch takes all channels and returns half of ``out``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.split = stride == 1
        self.branch1: nn.Module = nn.Identity()
        if not self.split:
            self.branch1 = nn.Sequential(
                *conv_bn(in_channels, in_channels, stride=stride, groups=in_channels),
                *conv_bn_relu(in_channels, half, kernel=1),
            )
        self.branch2 = nn.Sequential(
            *conv_bn_relu(half if self.split else in_channels, half, kernel=1),
            *conv_bn(half, half, stride=stride, groups=half),
            *conv_bn_relu(half, half, kernel=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1) if self.split else (x, x)
        return channel_shuffle(torch.cat([self.branch1(first), self.branch2(second)], dim=1), groups=2)


@register("shufflenetv2", version=2, widths=(116, 232, 464))
class ShuffleNetV2(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs].

    ``widths``: channels of ``layer1`` to ``layer3``, which have 4, 8 and 4 blocks. Their maps have 1/2, 1/4 and 1/8 of
    the image's side and are taken after activation; the last one before the final 1x1 convolution.
    """

    stage_names = ("layer1", "layer2", "layer3")

    def __init__(
        self, in_channels: int, num_outputs: int, image_size: tuple[int, int], widths: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.normalise = Normalise(in_channels)
        self.conv1 = nn.Sequential(*conv_bn_relu(in_channels, STEM, kernel=1))
        self.layer1 = block_sequence(ShuffleUnit, 4, STEM, widths[0], stride=2)
        self.layer2 = block_sequence(ShuffleUnit, 8, widths[0], widths[1], stride=2)
        self.layer3 = block_sequence(ShuffleUnit, 4, widths[1], widths[2], stride=2)
        self.conv2 = nn.Sequential(*conv_bn_relu(widths[2], 1024, kernel=1))
        self.linear = nn.Linear(1024, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(self.normalise(images)))))
        outputs: Tensor = self.linear(self.conv2(x).mean((2, 3)))
        return outputs
