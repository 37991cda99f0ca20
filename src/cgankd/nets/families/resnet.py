"""``resnet18``, ``resnet34`` and ``resnet50``: the ImageNet residual networks with a stem for small images.

He et al., Deep Residual Learning (arXiv 1512.03385, table 1), with a 3x3 convolution of stride 1 in place of the
7x7 one of stride 2 and its max pooling (Tian et al., arXiv 1910.10699). The tensors of ``resnet50`` have the names of
the checkpoint that distillation papers share. ``resnet20`` and similar are another family: resnet_cifar.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.nets.layers import BasicBlock, Normalise, block_sequence, conv3x3, conv_bn, initialise
from cgankd.nets.registry import register

STEM = 64  # channels


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, a quarter of the channels in between, plus the shortcut, then ReLU.

    [B, in, H, W] to [B, out, H/stride, W/stride]; the 3x3 convolution has the stride.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        hidden = out_channels // 4
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = conv3x3(hidden, hidden, stride)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + self.shortcut(x))


@register("resnet18", block=BasicBlock, blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512))
@register("resnet34", block=BasicBlock, blocks=(3, 4, 6, 3), widths=(64, 128, 256, 512))
@register("resnet50", block=Bottleneck, blocks=(3, 4, 6, 3), widths=(256, 512, 1024, 2048))
class ResNet(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs].

    ``blocks`` and ``widths``: number of blocks in ``layer1`` to ``layer4``, and their channels. Their maps have 1, 1/2,
    1/4 and 1/8 of the image's side and are taken after activation.
    """

    stage_names = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        image_size: tuple[int, int],
        block: Callable[[int, int, int], nn.Module],
        blocks: tuple[int, int, int, int],
        widths: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.normalise = Normalise(in_channels)
        self.conv1 = conv3x3(in_channels, STEM)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = block_sequence(block, blocks[0], STEM, widths[0], stride=1)
        self.layer2 = block_sequence(block, blocks[1], widths[0], widths[1], stride=2)
        self.layer3 = block_sequence(block, blocks[2], widths[1], widths[2], stride=2)
        self.layer4 = block_sequence(block, blocks[3], widths[2], widths[3], stride=2)
        self.linear = nn.Linear(widths[3], num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(self.normalise(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        outputs: Tensor = self.linear(x.mean((2, 3)))
        return outputs
