"""Parts that network families share: the normalising first layer, convolutions, blocks, initial weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.core.errors import UserError

STD_FLOOR = 1e-3  # avoids division by zero for a constant channel, such as an all-black one


class Normalise(nn.Module):
    """(x - mean) / std per channel: float images in [0, 1], [B, C, H, W], to the same shape.

    mean and std are buffers [1, C, 1, 1], so they are saved with the weights. They are 0.5 and 0.25 until
    :func:`fix_normalisation` sets them. constants: mean [C] and std [C], if they are fixed for the network's name:
    nothing sets them, and files of weights don't hold them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, constants: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.constant = constants is not None
        mean, std = constants or (torch.full((channels,), 0.5), torch.full((channels,), 0.25))
        self.register_buffer("mean", mean.view(1, channels, 1, 1), persistent=not self.constant)
        self.register_buffer("std", std.view(1, channels, 1, 1), persistent=not self.constant)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def fix_normalisation(network: nn.Module, mean: Tensor, std: Tensor) -> bool:
    """Set every :class:`Normalise` layer of ``network`` to ``mean`` [C] and ``std`` [C], both of images in [0, 1].

    A std below 0.001 counts as 0.001. Returns whether there was a layer to set: a foreign network may have none, or
    one with constants, and does not change then. Raises UserError if the numbers of channels differ, or if mean and
    std can't be of images in [0, 1].
    """
    layers = list(normalisations(network).values())
    for layer in layers:
        channels = layer.mean.shape[1]
        if tuple(mean.shape) != (channels,) or tuple(std.shape) != (channels,):
            raise UserError(
                f"the network normalises {channels} channel(s), but mean is {list(mean.shape)} and std is "
                f"{list(std.shape)}; allowed: [{channels}] for both"
            )
        std = std.clamp_min(STD_FLOOR)  # keeps nan, which is refused below
        for_unit_images(mean, std, "the normalisation")
    for layer in layers:
        layer.mean.copy_(mean.view(1, -1, 1, 1))
        layer.std.copy_(std.view(1, -1, 1, 1))
    return bool(layers)


def normalisations(network: nn.Module) -> dict[str, Normalise]:
    """The network's :class:`Normalise` layers that are saved with its weights, by name."""
    return {
        name: layer for name, layer in network.named_modules() if isinstance(layer, Normalise) and not layer.constant
    }


def check_normalisations(network: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """UserError if the ``tensors`` for :class:`Normalise` layers can't be of images in [0, 1]."""
    for name in normalisations(network):
        prefix = f"{name}." if name else ""
        for_unit_images(tensors[f"{prefix}mean"].flatten(), tensors[f"{prefix}std"].flatten(), f"{where}: {name}")


def for_unit_images(mean: Tensor, std: Tensor, where: str) -> None:
    """UserError if mean [C] or std [C] can't be of images in [0, 1]."""
    if normalisation(mean, std, where)[2]:
        raise UserError(
            f"{where}: mean {_numbers(mean)} and std {_numbers(std)} are for images in [0, 255]; needed: numbers for "
            "images in [0, 1]: the same, divided by 255"
        )


def normalisation(mean: Tensor, std: Tensor, where: str) -> tuple[Tensor, Tensor, bool]:
    """mean [C] and std [C] for images in [0, 1], and whether they were divided by 255 because they were for [0, 255].

    The numbers show their scale: for images in [0, 1] no mean and no std is above 1; for images in [0, 255] each mean
    is 0 or above 1, and each std is 1 or more. Raises UserError for numbers that are not finite, a std of 0, a
    negative number, different lengths, and a mix of both scales.
    """
    pair = f"{where}: mean {_numbers(mean)} and std {_numbers(std)}"
    if mean.ndim != 1 or mean.shape != std.shape or not len(mean):
        raise UserError(f"{pair} differ in length; needed: one number of each for every channel")
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise UserError(f"{pair} are not all finite; finite numbers are needed")
    if (std <= 0).any() or (mean < 0).any():
        raise UserError(f"{pair} hold a number that is too small; allowed: a mean of 0 or more, and a std above 0")
    if (mean <= 1).all() and (std <= 1).all():
        return mean, std, False
    if ((mean == 0) | (mean > 1)).all() and (std >= 1).all() and (mean <= 255).all() and (std <= 255).all():
        return mean / 255.0, std / 255.0, True
    raise UserError(f"{pair} mix two scales; allowed: all numbers for images in [0, 1], or all for images in [0, 255]")


def _numbers(values: Tensor) -> str:
    return ",".join(f"{value:.6g}" for value in values.flatten().tolist())


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the size at stride 1 and halves it, rounded up, at stride 2."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv_bn(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """A convolution that keeps the size at stride 1, and batch normalisation: layers for an nn.Sequential."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)
    return [conv, nn.BatchNorm2d(out_channels)]


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """:func:`conv_bn` and ReLU. It is not in place, because the batch normalisation's own output may be tapped."""
    return [*conv_bn(in_channels, out_channels, kernel, stride, groups, bias), nn.ReLU()]


def block_sequence(
    block: Callable[[int, int, int], nn.Module], blocks: int, in_channels: int, out_channels: int, stride: int
) -> nn.Sequential:
    """``blocks`` blocks in a row, each created by ``block(in_channels, out_channels, stride)``.

    The first one has ``stride`` and takes ``in_channels``; the others keep the shape.
    """
    first = block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(block(out_channels, out_channels, 1) for _ in range(blocks - 1)))


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)): [B, in, H, W] to [B, out, H/stride, W/stride].

    He et al. (arXiv 1512.03385), with a 1x1 convolution as shortcut if the shape changes.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.downsample(x))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """[B, C, H, W] to the same shape: channel g * C/groups + k becomes channel k * groups + g.

    Zhang et al., ShuffleNet (arXiv 1707.01083). The shuffle works on the channels-last layout that training uses,
    so the next convolution gets that layout too.
    """
    grouped = x.permute(0, 2, 3, 1).unflatten(-1, (groups, -1))  # [B, H, W, groups, C/groups]
    return grouped.transpose(-1, -2).flatten(-2).permute(0, 3, 1, 2)


def initialise(network: nn.Module) -> None:
    """Initial weights, from torch's global generator: convolutions Kaiming normal by fan-out (He et al.,
    arXiv 1502.01852) with zero bias, batch normalisation 1 and 0, linear layers as torch initialises them."""
    if any(parameter.is_meta for parameter in network.parameters()):
        return  # meta tensors have no values, and initialising them makes torch load its compiler, which takes seconds
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
