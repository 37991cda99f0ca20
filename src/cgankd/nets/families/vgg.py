"""VGG networks for small images, ``vgg8`` to ``vgg19``, with batch normalisation and one linear layer.

Simonyan and Zisserman (arXiv 1409.1556, configurations A, B, D and E), reduced as in distillation papers (Tian et
al., arXiv 1910.10699). Tensors have the names of published checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from cgankd.nets.layers import Normalise, conv_bn_relu, initialise
from cgankd.nets.registry import register

WIDTHS = (64, 128, 256, 512, 512)


@register("vgg8", convs=(1, 1, 1, 1, 1))
@register("vgg11", convs=(1, 1, 2, 2, 2))
@register("vgg13", convs=(2, 2, 2, 2, 2))
@register("vgg16", convs=(2, 2, 3, 3, 3))
@register("vgg19", convs=(2, 2, 4, 4, 4))
class VGG(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs]; ``convs``: convolutions per block.

    Max pooling halves the map after each of the first three blocks, and after the fourth if the image's smaller side is
    64 or more; the last pool is a global average. So the last map is 2x2 at 16 pixels and 4x4 at 32 and at 64.
    """

    def __init__(
        self, in_channels: int, num_outputs: int, image_size: tuple[int, int], convs: tuple[int, int, int, int, int]
    ) -> None:
        super().__init__()
        self.normalise = Normalise(in_channels)
        inputs = (in_channels, *WIDTHS)
        self.block0 = _block(convs[0], inputs[0], inputs[1])
        self.block1 = _block(convs[1], inputs[1], inputs[2])
        self.block2 = _block(convs[2], inputs[2], inputs[3])
        self.block3 = _block(convs[3], inputs[3], inputs[4])
        self.block4 = _block(convs[4], inputs[4], inputs[5])
        self.pool = nn.MaxPool2d(2)
        large = min(image_size) >= 64
        self.pool3 = nn.MaxPool2d(2) if large else nn.Identity()
        # the last map of each resolution, after activation and before the pool
        self.stage_names = ("block0", "block1", "block2", *(("block3",) if large else ()), "block4")
        self.classifier = nn.Linear(WIDTHS[-1], num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.block0(self.normalise(images)))
        x = self.pool(self.block1(x))
        x = self.pool(self.block2(x))
        x = self.block4(self.pool3(self.block3(x)))
        outputs: Tensor = self.classifier(x.mean((2, 3)))
        return outputs


def _block(convs: int, in_channels: int, out_channels: int) -> nn.Sequential:
    layers = conv_bn_relu(in_channels, out_channels, bias=True)
    for _ in range(convs - 1):
        layers += conv_bn_relu(out_channels, out_channels, bias=True)
    return nn.Sequential(*layers)
