"""``shufflenetv1``: ShuffleNet with three groups, with a stem for small images.

Zhang et al., ShuffleNet (arXiv 1707.01083, table 1, g = 3), with a 1x1 convolution in place of the 3x3 one of
stride 2 and its max pooling, and a ReLU after the depthwise convolution too. Initial weights are torch's. All as
in Tian et al. (arXiv 1910.10699).
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.nets.layers import Normalise, block_sequence, channel_shuffle, conv_bn, conv_bn_relu
from cgankd.nets.registry import register

STEM = 24  # channels


class ShuffleUnit(nn.Module):
    """1x1 in groups, shuffle, depthwise 3x3, 1x1 in groups, joined with the shortcut, then ReLU.

    [B, in, H, W] to [B, out, H/stride, W/stride]. At stride 1 the shortcut is x, and is added. At stride 2 it is
    an average pooling over 3x3 pixels, and its channels are joined after those of the convolutions. The first 1x1 after
    the stem has one group, because the stem has few channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride = stride
        added = out_channels - in_channels if stride == 2 else out_channels  # by the convolutions
        hidden = added // 4
        self.groups = 1 if in_channels == STEM else groups
        self.reduce = nn.Sequential(*conv_bn_relu(in_channels, hidden, kernel=1, groups=self.groups))
        self.depthwise = nn.Sequential(*conv_bn_relu(hidden, hidden, stride=stride, groups=hidden))
        self.expand = nn.Sequential(*conv_bn(hidden, added, kernel=1, groups=groups))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.expand(self.depthwise(channel_shuffle(self.reduce(x), self.groups)))
        if self.stride == 1:
            return F.relu(residual + x)
        return F.relu(torch.cat([residual, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1))


@register("shufflenetv1", version=2, groups=3, widths=(240, 480, 960))
class ShuffleNetV1(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs].

    ``widths``: channels of ``layer1`` to ``layer3``, which have 4, 8 and 4 blocks. Their maps have 1/2, 1/4 and 1/8 of
    the image's side and are taken after activation.
    """

    stage_names = ("layer1", "layer2", "layer3")

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        image_size: tuple[int, int],
        groups: int,
        widths: tuple[int, int, int],
    ) -> None:
        super().__init__()
        unit = functools.partial(ShuffleUnit, groups=groups)
        self.normalise = Normalise(in_channels)
        self.conv1 = nn.Sequential(*conv_bn_relu(in_channels, STEM, kernel=1))
        self.layer1 = block_sequence(unit, 4, STEM, widths[0], stride=2)
        self.layer2 = block_sequence(unit, 8, widths[0], widths[1], stride=2)
        self.layer3 = block_sequence(unit, 4, widths[1], widths[2], stride=2)
        self.linear = nn.Linear(widths[2], num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(self.normalise(images)))))
        outputs: Tensor = self.linear(x.mean((2, 3)))
        return outputs
