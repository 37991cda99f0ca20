"""Creates networks by name, such as ``network: resnet8`` in a recipe.

Every network takes float images in [0, 1] (uint8 / 255), [B, C, H, W], normalises them in its own first layer, and
returns [B, num_outputs]: logits, or one scalar. ``timm/NAME`` is a network of the timm library, ``module:function`` is
the user's own; ``+vam`` after any name adds attention over blocks of channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cgankd.core.errors import UserError, did_you_mean, said
from cgankd.core.plugins import load_function
from cgankd.nets import attention, families, timm_bridge  # noqa: F401  (importing the families registers them)
from cgankd.nets.feature_layers import map_layers
from cgankd.nets.layers import Normalise, fix_normalisation
from cgankd.nets.registry import BUILDERS, register
from cgankd.nets.trial import check_answers, device

__all__ = [
    "Normalise", "create", "family", "fix_normalisation", "map_layers", "names", "parameter_counts", "register",
    "sketches",
]  # fmt: skip

SMALLEST = 16  # pixels; deeper networks would have an empty last map for smaller images


def names() -> list[str]:
    """The names of all registered networks, without timm's; numbers in names are sorted by value.

    >>> names()[:3]
    ['alexnet', 'alexnet_half', 'cnn8']
    """
    return sorted(BUILDERS, key=lambda name: re.sub(r"\d+", lambda number: number[0].zfill(6), name))


def family(network: nn.Module) -> list[str]:
    """The registered names of networks of the same class as ``network``; empty for a foreign network.

    >>> family(create("wrn_16_1", 3, 10, (32, 32)))
    ['wrn_16_1', 'wrn_16_2', 'wrn_40_1', 'wrn_40_2']
    """
    return [name for name in names() if BUILDERS[name].func is type(network)]


def parameter_counts(
    in_channels: int, num_outputs: int, image_size: tuple[int, int], of: Iterable[str] | None = None
) -> dict[str, int]:
    """Name -> number of parameters, for the names ``of`` (None: all). Allocates no memory for weights."""
    networks = sketches(in_channels, num_outputs, image_size, names() if of is None else of)
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def sketches(
    in_channels: int, num_outputs: int, image_size: tuple[int, int], of: Iterable[str]
) -> dict[str, nn.Module]:
    """Name -> network on torch's meta device: with shapes, but without values."""
    with torch.device("meta"):
        return {name: create(name, in_channels, num_outputs, image_size) for name in of}


def create(name: str, in_channels: int, num_outputs: int, image_size: tuple[int, int]) -> nn.Module:
    """A new network with random weights from torch's global generator.

    in_channels: 1 or 3. num_outputs: number of classes, or 1 for a scalar. image_size: height and width in pixels, at
    least 16. name: one of :func:`names`, ``timm/NAME``, or ``module:function``: that function is called with the
    keyword arguments in_channels, num_outputs and image_size. A foreign network is tried on two images. ``NAME+vam``
    is the network NAME with :func:`cgankd.nets.attention.add_attention`.

    Raises UserError for an unknown name, too small images, a missing timm, a user's function that fails or returns no
    network with outputs [B, num_outputs], and for attention on a network without feature maps.

    >>> import torch
    >>> network = create("resnet8", in_channels=3, num_outputs=10, image_size=(32, 32))
    >>> network(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if min(image_size) < SMALLEST:
        raise UserError(f"images are {image_size[0]}x{image_size[1]} pixels; allowed: {SMALLEST} or more on each side")
    base, plus, suffix = name.partition("+")
    if plus:
        if plus + suffix != attention.SUFFIX:
            raise UserError(f"network {name!r}: the suffix +{suffix} is not known; allowed: {base}{attention.SUFFIX}")
        network = create(base, in_channels, num_outputs, image_size)
        return attention.add_attention(network, in_channels, image_size, base)
    if name.startswith(timm_bridge.PREFIX):
        network = timm_bridge.create(name, in_channels, num_outputs, image_size)
        check_outputs(name, network, in_channels, image_size, num_outputs)
        return network
    if ":" in name:
        return _create_users(name, in_channels, num_outputs, image_size)
    if name not in BUILDERS:
        raise UserError(
            f"network {name!r} is not known{did_you_mean(name, BUILDERS)}; allowed: "
            f"{', '.join(names())}, timm/NAME, or your own as module:function"
        )
    return BUILDERS[name](in_channels=in_channels, num_outputs=num_outputs, image_size=image_size)


def _create_users(name: str, in_channels: int, num_outputs: int, image_size: tuple[int, int]) -> nn.Module:
    function = load_function(name, "network")
    try:
        network = function(in_channels=in_channels, num_outputs=num_outputs, image_size=image_size)
    except Exception as error:
        raise UserError(
            f"network {name!r}: calling it with in_channels={in_channels}, num_outputs={num_outputs}, "
            f"image_size={image_size} failed ({said(error)})"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"network {name!r}: it returned {type(network).__name__}; needed: a torch.nn.Module")
    check_outputs(name, network, in_channels, image_size, num_outputs)
    return network


def check_outputs(
    name: str, network: nn.Module, in_channels: int, image_size: tuple[int, int], num_outputs: int
) -> Tensor:
    """The outputs for two different images. Raises UserError if they are not floats [2, num_outputs]."""
    pixels = torch.linspace(0.0, 1.0, in_channels * image_size[0] * image_size[1], device=device(network))
    images = torch.stack([pixels, 1.0 - pixels * pixels]).view(2, in_channels, *image_size)
    return check_answers(f"network {name!r}", network, images, num_outputs)
