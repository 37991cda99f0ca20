"""The residual networks of the small-image distillation literature, ``resnet8`` to ``resnet110`` and the x4 ones.

He et al., Deep Residual Learning (arXiv 1512.03385, section 4.2), with projection shortcuts and the widths that
distillation papers use (Tian et al., arXiv 1910.10699). Tensors have the names of published checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.nets.layers import BasicBlock, Normalise, block_sequence, conv3x3, initialise
from cgankd.nets.registry import register


@register("resnet8", depth=8)
@register("resnet14", depth=14)
@register("resnet20", depth=20)
@register("resnet32", depth=32)
@register("resnet44", depth=44)
@register("resnet56", depth=56)
@register("resnet110", depth=110)
@register("resnet8x4", depth=8, widths=(32, 64, 128, 256))
@register("resnet32x4", depth=32, widths=(32, 64, 128, 256))
class CifarResNet(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs]; ``depth`` is 6n + 2.

    ``widths``: channels of the stem and of ``layer1`` to ``layer3``. Their maps have 1, 1/2 and 1/4 of the image's
    side and are taken after activation.
    """

    stage_names = ("layer1", "layer2", "layer3")

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        image_size: tuple[int, int],
        depth: int,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.normalise = Normalise(in_channels)
        self.conv1 = conv3x3(in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = block_sequence(BasicBlock, blocks, widths[0], widths[1], stride=1)
        self.layer2 = block_sequence(BasicBlock, blocks, widths[1], widths[2], stride=2)
        self.layer3 = block_sequence(BasicBlock, blocks, widths[2], widths[3], stride=2)
        self.fc = nn.Linear(widths[3], num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(self.normalise(images))))
        x = self.layer3(self.layer2(self.layer1(x)))
        outputs: Tensor = self.fc(x.mean((2, 3)))
        return outputs
