"""What a network says of images, how good that is, and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.core.blockwise import BLOCK, blockwise
from cgankd.core.runtime import to_device
from cgankd.core.store import Work

# float images [B, C, H, W] in [0, 1] -> outputs [B, number of outputs]; an nn.Module is one
Predictor = Callable[[Tensor], Tensor]
MOST_VALUES = 8_000_000  # of the images that a network sees at once, because its maps are many times as large


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, C, H, W] -> what every network eats: float32 in [0, 1], channels last, on the device."""
    return to_device(images, device).to(memory_format=torch.channels_last).float().div_(255.0)


def place(network: nn.Module, fabric: Fabric) -> nn.Module:
    """The network itself, on the device and with its weights laid out channels last."""
    network.to(fabric.device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def images_at_once(images: Tensor) -> int:
    """How many of ``images`` [N, C, H, W] a network is asked about in one call: few where they are large."""
    return max(16, min(BLOCK, MOST_VALUES // math.prod(images.shape[1:])))


@torch.no_grad()
def outputs(work: Work, network: Predictor, images: Tensor, name: str = "outputs") -> Tensor:
    """float32 [N, number of outputs] on the CPU, for uint8 images [N, C, H, W]; a module runs in eval mode.

    All of it is computed at float32, whatever the training is: what is stored or scored is not rounded.
    name: of this pass over the images, among those of the stage; a killed one goes on.
    """
    training = isinstance(network, nn.Module) and network.training
    if isinstance(network, nn.Module):
        place(network, work.fabric).eval()

    def compute(rows: Tensor) -> dict[str, Tensor]:
        return {"outputs": plain(network(to_input(images[rows], work.fabric.device)))}

    try:
        return blockwise(work, name, len(images), compute, images_at_once(images))["outputs"]
    finally:
        if isinstance(network, nn.Module):
            network.train(training)


def plain(tensor: Tensor) -> Tensor:
    """float32, and no tensor of inference_mode, as a teacher's may be: a loss can't keep those for its gradient."""
    return (tensor.clone() if tensor.is_inference() else tensor).float()
