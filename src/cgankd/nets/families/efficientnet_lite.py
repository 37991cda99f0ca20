"""``efficientnet_lite0``: EfficientNet-Lite0 as published, so that its ImageNet weights fit.

Google's EfficientNet-Lite (github.com/tensorflow/tpu, models/official/efficientnet/lite): EfficientNet-B0 with a first
stride of 2, ReLU6 and no squeeze and excite. At stride 2 TensorFlow pads below and to the right; its batch
normalisation adds 0.001 to variances. Small images are enlarged, because the weights were trained on large ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.nets.families.efficientnet import Design, EfficientNet, MBConv
from cgankd.nets.layers import Normalise, conv_bn
from cgankd.nets.registry import register

SIDE = 64  # pixels: images with a shorter side are enlarged to it
STEP = 32  # pixels: sides are multiples of it, because five layers halve them
MEAN, STD = 127 / 255, 128 / 255  # of every channel, for pixels in [0, 1]; the weights were trained with them
EPSILON = 1e-3  # added to variances


def conv_bn_tensorflow(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """:func:`cgankd.nets.layers.conv_bn` with TensorFlow's padding, for even sides, and its epsilon.

    At stride 2 there is one row and one column of zeros less above and to the left than below and to the right.
    """
    conv, norm = conv_bn(in_channels, out_channels, kernel, stride, groups)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eps = EPSILON
    if stride == 1:
        return [conv, norm]
    conv.padding = (0, 0)
    before, after = kernel // 2 - 1, kernel // 2
    return [nn.ZeroPad2d((before, after, before, after)), conv, norm]


LITE = Design(stem_stride=2, activation=nn.ReLU6, squeeze=False, conv=conv_bn_tensorflow)


@register("efficientnet_lite0")
class EfficientNetLite(EfficientNet):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs]; grey images are repeated to 3 channels.

    Images are resized to :func:`side_lengths` first; the last map has 1/32 of that side.
    """

    def __init__(self, in_channels: int, num_outputs: int, image_size: tuple[int, int]) -> None:
        super().__init__(3, num_outputs, image_size, LITE)
        self.size = side_lengths(*image_size)
        self.normalise = Normalise(3, (torch.full((3,), MEAN), torch.full((3,), STD)))

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", align_corners=False)
        return super().forward(images.expand(-1, 3, -1, -1))


def published_names(network: EfficientNetLite) -> dict[str, str]:
    """Each layer with weights -> its name in EfficientNet-PyTorch (github.com/lukemelas/EfficientNet-PyTorch).

    There all blocks are numbered in one sequence, and a block without expansion has no first convolution.
    """
    blocks = [(name, block) for name, block in network.named_modules() if isinstance(block, MBConv)]
    theirs = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    names = _weighted("conv1", network.conv1, ["_conv_stem", "_bn0"])
    for number, (name, block) in enumerate(blocks):
        names |= _weighted(f"{name}.conv", block.conv, [f"_blocks.{number}.{layer}" for layer in theirs])
    return {**names, **_weighted("conv2", network.conv2, ["_conv_head", "_bn1"]), "classifier": "_fc"}


def _weighted(name: str, layers: nn.Sequential, theirs: list[str]) -> dict[str, str]:
    """The layers with weights -> as many of the last names in ``theirs``."""
    own = [f"{name}.{at}" for at, layer in layers.named_children() if next(layer.parameters(), None) is not None]
    return dict(zip(own, theirs[-len(own) :], strict=True))


def side_lengths(height: int, width: int) -> tuple[int, int]:
    """The size that an image is resized to: short side at least 64, both sides rounded up to a multiple of 32.

    >>> side_lengths(28, 28), side_lengths(32, 48), side_lengths(224, 200)
    ((64, 64), (64, 96), (224, 224))
    """
    factor = max(1.0, SIDE / min(height, width))
    return _round_up(height * factor), _round_up(width * factor)


def _round_up(length: float) -> int:
    return -(-round(length) // STEP) * STEP
