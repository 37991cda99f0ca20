"""``lenet5`` and ``lenet5_half``: the LeNet-5 of papers on distillation with few images, with ReLU and max pooling.

The layers are those of FS-BBT's published code for MNIST and Fashion-MNIST (Nguyen et al., Black-box Few-shot
Knowledge Distillation, ECCV 2022, github.com/nphdang/FS-BBT): the first convolution has no border, the second keeps the
size, and ``lenet5_half`` halves the filters of the convolutions alone, not the linear layers. The weights start as in
the other networks here.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.nets.layers import Normalise, initialise
from cgankd.nets.registry import register

HIDDEN = (120, 84)  # outputs of the two hidden linear layers, also in the half network


@register("lenet5", filters=(6, 16))
@register("lenet5_half", filters=(3, 8))
class LeNet5(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs].

    ``filters``: of the two 5x5 convolutions, each followed by ReLU and 2x2 max pooling. Then three linear layers. The
    maps are taken after activation and before the pool. There is no batch normalisation.
    """

    stage_names = ("layer1", "layer2")

    def __init__(
        self, in_channels: int, num_outputs: int, image_size: tuple[int, int], filters: tuple[int, int]
    ) -> None:
        super().__init__()
        self.normalise = Normalise(in_channels)
        self.layer1 = nn.Sequential(nn.Conv2d(in_channels, filters[0], 5), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(filters[0], filters[1], 5, padding=2), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        height, width = ((side - 4) // 2 // 2 for side in image_size)
        self.fc1 = nn.Linear(filters[1] * height * width, HIDDEN[0])
        self.fc2 = nn.Linear(HIDDEN[0], HIDDEN[1])
        self.fc3 = nn.Linear(HIDDEN[1], num_outputs)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.layer1(self.normalise(images)))
        x = self.pool(self.layer2(x)).flatten(1)
        outputs: Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))
        return outputs
