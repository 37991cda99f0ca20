"""``cnn8`` to ``cnn48_grid``: plain convolutional networks of our own, small enough for two CPU cores."""

from __future__ import annotations

from torch import Tensor, nn

from cgankd.nets.layers import Normalise, conv_bn_relu, initialise
from cgankd.nets.registry import register


@register("cnn8", width=8)
@register("cnn16", width=16)
@register("cnn24", width=24)
@register("cnn16_grid", width=16, grid=2)
@register("cnn40_grid", width=40, grid=2)
@register("cnn48_grid", width=48, grid=2)
class ConvNet(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs].

    Six 3x3 convolutions of ``width`` w: w, w, 2w, 2w, 4w, 4w channels, each with batch normalisation and ReLU, the
    first, third and fifth with stride 2. Then average pooling to ``grid`` x ``grid`` and one linear layer. Grid 1
    (global pooling) loses positions; grid 2 keeps coarse positions, which angles and other scalar labels need.
    """

    stage_names = ("layer1", "layer2", "layer3")

    def __init__(
        self, in_channels: int, num_outputs: int, image_size: tuple[int, int], width: int, grid: int = 1
    ) -> None:
        super().__init__()
        self.normalise = Normalise(in_channels)
        self.layer1 = _block(in_channels, width)
        self.layer2 = _block(width, 2 * width)
        self.layer3 = _block(2 * width, 4 * width)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.fc = nn.Linear(4 * width * grid**2, num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.normalise(images))))
        outputs: Tensor = self.fc(self.pool(x).flatten(1))
        return outputs


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn_relu(in_channels, out_channels, stride=2), *conv_bn_relu(out_channels, out_channels))
