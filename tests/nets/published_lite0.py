"""EfficientNet-Lite0 a second time: its published tensors by name, and its outputs from them, layer by layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTHS = [16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320]
KERNELS = [3, *[3] * 2, *[5] * 2, *[3] * 3, *[5] * 3, *[5] * 4, 3]
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


def random_state(classes: int, seed: int) -> dict[str, Tensor]:
    """A state dict with the published names and shapes."""
    rng = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        fan = inputs * kernel**2
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=rng) * (2 / fan) ** 0.5

    def norm(name: str, channels: int) -> None:
        for kind, shift in [("weight", 0.5), ("bias", 0.0), ("running_mean", -0.5), ("running_var", 0.5)]:
            state[f"{name}.{kind}"] = torch.rand(channels, generator=rng) + shift
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    inputs = 32
    for number, (width, kernel) in enumerate(zip(WIDTHS, KERNELS, strict=True)):
        name, hidden = f"_blocks.{number}", inputs if number == 0 else 6 * inputs
        if number:
            conv(f"{name}._expand_conv", hidden, inputs, 1)
            norm(f"{name}._bn0", hidden)
        conv(f"{name}._depthwise_conv", hidden, 1, kernel)
        norm(f"{name}._bn1", hidden)
        conv(f"{name}._project_conv", width, hidden, 1)
        norm(f"{name}._bn2", width)
        inputs = width
    conv("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    state["_fc.weight"], state["_fc.bias"] = torch.randn(classes, 1280, generator=rng), torch.zeros(classes)
    return state


def outputs(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """What the network says of float images [B, 3, H, W] in [0, 1], each side a multiple of 32."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        kernel = weight.shape[2]
        needed = [(-(-side // stride) - 1) * stride + kernel - side for side in x.shape[2:]]  # TensorFlow's SAME
        x = F.pad(x, (needed[1] // 2, needed[1] - needed[1] // 2, needed[0] // 2, needed[0] - needed[0] // 2))
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        mean, var, scale, shift = (
            state[f"{norm}.{kind}"][:, None, None] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 0.001).sqrt() * scale + shift

    x = layer((images * 255 - 127) / 128, "_conv_stem", "_bn0", 2).clamp(0, 6)
    for number, stride in enumerate(STRIDES):
        name, before = f"_blocks.{number}", x
        if number:
            x = layer(x, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
        x = layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride).clamp(0, 6)
        x = layer(x, f"{name}._project_conv", f"{name}._bn2")
        x = x + before if x.shape == before.shape else x
    x = layer(x, "_conv_head", "_bn1").clamp(0, 6).mean((2, 3))
    return x @ state["_fc.weight"].T + state["_fc.bias"]
