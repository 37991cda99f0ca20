"""``alexnet`` and ``alexnet_half``: the small AlexNet of papers on distillation with few images.

The layers are those of FS-BBT's published code for CIFAR-10 (Nguyen et al., Black-box Few-shot Knowledge Distillation,
ECCV 2022, github.com/nphdang/FS-BBT): batch normalisation comes after activation, pooling and dropout, and
``alexnet_half`` halves the linear layers too. The weights start as in the other networks here.
"""

from __future__ import annotations

from torch import Tensor, nn

from cgankd.nets.layers import Normalise, initialise
from cgankd.nets.registry import register

DROP = 0.5
Filters = tuple[int, int, int, int, int]


@register("alexnet", filters=(48, 128, 192, 192, 128), hidden=(512, 256))
@register("alexnet_half", filters=(24, 64, 96, 96, 64), hidden=(256, 128))
class AlexNet(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs].

    ``filters``: of the five convolutions (5x5, 5x5, 3x3, 3x3, 3x3), all with stride 1. The first, second and fifth are
    followed by 3x3 max pooling with stride 2 and no border: a side of 32 becomes 15, 7 and 3. ``hidden``: outputs of
    the two hidden linear layers, each with dropout. The maps are taken after activation and before the pool.
    """

    stage_names = ("layer1", "layer2", "layer5")

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        image_size: tuple[int, int],
        filters: Filters,
        hidden: tuple[int, int],
    ) -> None:
        super().__init__()
        self.normalise = Normalise(in_channels)
        self.layer1 = _convolution(in_channels, filters[0], kernel=5)
        self.bn1 = nn.BatchNorm2d(filters[0])
        self.layer2 = _convolution(filters[0], filters[1], kernel=5)
        self.bn2 = nn.BatchNorm2d(filters[1])
        self.layer3 = _convolution(filters[1], filters[2], kernel=3)
        self.bn3 = nn.BatchNorm2d(filters[2])
        self.layer4 = _convolution(filters[2], filters[3], kernel=3)
        self.bn4 = nn.BatchNorm2d(filters[3])
        self.layer5 = _convolution(filters[3], filters[4], kernel=3)
        self.bn5 = nn.BatchNorm2d(filters[4])
        self.pool = nn.MaxPool2d(3, stride=2)
        height, width = (_pooled(_pooled(_pooled(side))) for side in image_size)
        self.fc1 = _hidden_layer(filters[4] * height * width, hidden[0])
        self.fc2 = _hidden_layer(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn1(self.pool(self.layer1(self.normalise(images))))
        x = self.bn2(self.pool(self.layer2(x)))
        x = self.bn4(self.layer4(self.bn3(self.layer3(x))))
        x = self.bn5(self.pool(self.layer5(x))).flatten(1)
        outputs: Tensor = self.fc3(self.fc2(self.fc1(x)))
        return outputs


def _convolution(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2), nn.ReLU())


def _hidden_layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(DROP), nn.BatchNorm1d(outputs))


def _pooled(side: int) -> int:
    return (side - 3) // 2 + 1
