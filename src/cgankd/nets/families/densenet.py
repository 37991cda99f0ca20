"""``densenet121`` and ``densenet161``: densely connected networks with a stem for small images.

Huang et al., Densely Connected Convolutional Networks (arXiv 1608.06993, table 1, DenseNet-BC), with one 3x3
convolution of stride 1 in place of the 7x7 one of stride 2, its batch normalisation and its max pooling.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.nets.layers import Normalise, conv3x3, initialise
from cgankd.nets.registry import register


class DenseLayer(nn.Module):
    """x joined with ``growth`` new channels computed from it: [B, in, H, W] to [B, in + growth, H, W]."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv3x3(4 * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        added = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return torch.cat([x, added], dim=1)


@register("densenet121", growth=32, layers=(6, 12, 24, 16))
@register("densenet161", growth=48, layers=(6, 12, 36, 24))
class DenseNet(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs].

    ``layers``: dense layers in each of the blocks ``blocks.0``, ``.2``, ``.4`` and ``.6``, whose maps have 1, 1/2,
    1/4 and 1/8 of the image's side, rounded down. The maps are the joined channels, before normalisation and
    activation. A transition between two blocks halves the channels and the side.
    """

    stage_names = ("blocks.0", "blocks.2", "blocks.4", "blocks.6")

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        image_size: tuple[int, int],
        growth: int,
        layers: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        channels = 2 * growth
        self.normalise = Normalise(in_channels)
        self.conv1 = conv3x3(in_channels, channels)
        self.blocks = nn.Sequential()
        for count in layers:
            if self.blocks:
                self.blocks.append(_transition(channels))
                channels //= 2
            self.blocks.append(nn.Sequential(*(DenseLayer(channels + k * growth, growth) for k in range(count))))
            channels += count * growth
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.conv1(self.normalise(images)))
        outputs: Tensor = self.linear(F.relu(self.bn(x)).mean((2, 3)))
        return outputs


def _transition(channels: int) -> nn.Sequential:
    halved = nn.Conv2d(channels, channels // 2, 1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), halved, nn.AvgPool2d(2))
