"""``mobilenetv2`` and ``mobilenetv2_full``: MobileNetV2 with expansion 6, as distillation papers use it.

Sandler et al., MobileNetV2 (arXiv 1801.04381), with a stride of 1 instead of 2 at 24 channels, plain ReLUs, and a 1x1
convolution in the first block too (Tian et al., arXiv 1910.10699). ``mobilenetv2`` has half the width, because the
distillation literature uses this name for it; ``mobilenetv2_full`` has width 1.
"""

from __future__ import annotations

import functools

from torch import Tensor, nn

from cgankd.nets.layers import Normalise, block_sequence, conv_bn, conv_bn_relu, initialise
from cgankd.nets.registry import register

SEQUENCES = (  # expansion, channels at full width, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; plus the input if the shape stays the same.

    [B, in, H, W] to [B, out, H/stride, W/stride].
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *conv_bn_relu(in_channels, hidden, kernel=1),
            *conv_bn_relu(hidden, hidden, stride=stride, groups=hidden),
            *conv_bn(hidden, out_channels, kernel=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


@register("mobilenetv2", width=0.5)
@register("mobilenetv2_full", width=1.0)
class MobileNetV2(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs]; the last map has 1/16 of the image's side.

    ``width`` scales the channels of all layers but the last convolution, which has 1280. The maps are the
    outputs of the linear 1x1 convolutions, without activation.
    """

    stage_names = ("blocks.1", "blocks.2", "blocks.4", "blocks.6")

    def __init__(self, in_channels: int, num_outputs: int, image_size: tuple[int, int], width: float) -> None:
        super().__init__()
        channels = int(32 * width)
        self.normalise = Normalise(in_channels)
        self.conv1 = nn.Sequential(*conv_bn_relu(in_channels, channels, stride=2))
        sequences = []
        for expansion, full_width, blocks, stride in SEQUENCES:
            out_channels = int(full_width * width)
            block = functools.partial(InvertedResidual, expansion=expansion)
            sequences.append(block_sequence(block, blocks, channels, out_channels, stride))
            channels = out_channels
        self.blocks = nn.Sequential(*sequences)
        self.conv2 = nn.Sequential(*conv_bn_relu(channels, 1280, kernel=1))
        self.classifier = nn.Linear(1280, num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv2(self.blocks(self.conv1(self.normalise(images))))
        outputs: Tensor = self.classifier(x.mean((2, 3)))
        return outputs
