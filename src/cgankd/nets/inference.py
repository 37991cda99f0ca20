"""Runs a network on images: the input format, and outputs at float32."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cgankd.core.blockwise import BLOCK, blockwise
from cgankd.core.mapped_rows import Images
from cgankd.core.runtime import Fabric, to_device
from cgankd.core.store import Work
from cgankd.nets.taps import kept_modes

# float images [B, C, H, W] in [0, 1] -> outputs [B, number of outputs]; an nn.Module is one
Predictor = Callable[[Tensor], Tensor]
MOST_VALUES = 8_000_000  # of the images that a network sees at once, because its maps are many times as large


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, C, H, W] -> the input of every network: float32 in [0, 1], channels last, on the device."""
    return to_device(images, device).to(memory_format=torch.channels_last).float().div_(255.0)


def place(network: nn.Module, fabric: Fabric) -> nn.Module:
    """Move the network to the device, with its weights in channels-last layout, and return it."""
    return network.to(device=fabric.device, memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def images_at_once(images: Images) -> int:
    """How many of ``images`` [N, C, H, W] a network is asked about in one call: few where they are large."""
    return max(16, min(BLOCK, MOST_VALUES // math.prod(images.shape[1:])))


@torch.no_grad()
def outputs(work: Work, network: Predictor, images: Images, name: str = "outputs") -> Tensor:
    """float32 [N, number of outputs] on the CPU, for uint8 images [N, C, H, W]; a module runs in eval mode.

    Everything is computed at float32, at any training precision, because what is stored or scored must not be rounded.
    name: identifies this pass among those of the stage, so that a killed pass can continue.
    """

    def compute(rows: Tensor) -> dict[str, Tensor]:
        return {"outputs": plain(network(to_input(images[rows], work.fabric.device)))}

    with contextlib.ExitStack() as after:
        if isinstance(network, nn.Module):
            after.enter_context(kept_modes(network))
            place(network, work.fabric).eval()
        return blockwise(work, name, len(images), compute, images_at_once(images))["outputs"]


def is_of_networks(predictor: Predictor | None) -> bool:
    """Whether it is a network, or a vote of networks alone."""
    members = (predictor,) if isinstance(predictor, nn.Module) else getattr(predictor, "members", (predictor,))
    return all(isinstance(member, nn.Module) for member in members)


def plain(tensor: Tensor) -> Tensor:
    """As float32, and as no inference_mode tensor. A teacher may return one, but a loss can't save it for backward."""
    return (tensor.clone() if tensor.is_inference() else tensor).float()
