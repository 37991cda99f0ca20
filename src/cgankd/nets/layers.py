"""What every family of networks is built from: the normalising first layer, convolutions, first weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgankd.errors import UserError

STD_FLOOR = 1e-3  # a channel that never changes (all black) must not divide by zero


class Normalise(nn.Module):
    """(x - mean) / std per channel: float images in [0, 1], [B, C, H, W], to the same shape.

    mean and std are buffers [1, C, 1, 1], so they travel with the weights and nobody can forget them; they are 0.5
    and 0.25 until :func:`fix_normalisation` sets them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 0.25))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def fix_normalisation(network: nn.Module, mean: Tensor, std: Tensor) -> bool:
    """Set every :class:`Normalise` layer of ``network`` to ``mean`` [C] and ``std`` [C], both of images in [0, 1].

    A std below 0.001 counts as 0.001. Returns whether there was a layer to set: a network from elsewhere may have
    none and is then left as it is. Raises UserError where the channels differ.
    """
    layers = [module for module in network.modules() if isinstance(module, Normalise)]
    for layer in layers:
        channels = layer.mean.shape[1]
        if tuple(mean.shape) != (channels,) or tuple(std.shape) != (channels,):
            raise UserError(
                f"the network normalises {channels} channel(s), where mean is {list(mean.shape)} and std is "
                f"{list(std.shape)}; allowed: [{channels}] for both"
            )
    for layer in layers:
        layer.mean.copy_(mean.view(1, -1, 1, 1))
        layer.std.copy_(std.view(1, -1, 1, 1).clamp_min(STD_FLOOR))
    return bool(layers)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the size at stride 1 and halves it, rounded up, at stride 2."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """Convolution, batch normalisation, ReLU, to be put into an nn.Sequential.

    The ReLU isn't in place, so that a tapped batch normalisation shows its own output.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]


def initialise(network: nn.Module) -> None:
    """First weights, from torch's global generator: convolutions Kaiming normal by fan-out (He et al.,
    arXiv 1502.01852) with zero bias, batch normalisation 1 and 0, linear layers as torch makes them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
