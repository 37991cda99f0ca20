"""``timm/NAME``: any network of the timm library, with random weights and its own normalisation in front.

Pre-trained weights come from a .safetensors file that the user gives, never from a download.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.core.errors import UserError, did_you_mean
from cgankd.nets.layers import Normalise

PREFIX = "timm/"


def create(name: str, in_channels: int, num_outputs: int, image_size: tuple[int, int]) -> nn.Module:
    """The network that timm knows as ``name`` without the prefix; a tag such as ``.a1_in1k`` is allowed.

    Its first layer, ``normalise``, has the mean and std of timm's configuration for the name, averaged over the three
    channels if the images are grey. It runs before timm's layers and changes no tensor's name, so a .safetensors file
    of timm's weights fits.

    Raises UserError if timm is not installed, has no such network, or can't build it for these images.
    """
    timm = _timm(name)
    own_name = name.removeprefix(PREFIX)
    if not timm.is_model(own_name):  # this refuses hf-hub: and other remote names too
        hint = did_you_mean(name, (PREFIX + known for known in timm.list_models()))
        raise UserError(f"network {name!r} is not known to timm {timm.__version__}{hint}; allowed: timm.list_models()")
    try:
        config = timm.get_pretrained_cfg(own_name)
    except RuntimeError:  # timm raises it for an unknown tag
        kind, _, tag = own_name.partition(".")
        known = ", ".join(timm.list_pretrained(f"{kind}.*")) or "it without a tag"
        raise UserError(f"network {name!r}: timm knows no weights {tag!r} of {kind}; allowed: {known}") from None
    size = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    try:
        network: nn.Module = timm.create_model(
            own_name, pretrained=False, num_classes=num_outputs, in_chans=in_channels, **size
        )
    except Exception as error:  # timm's families raise errors of many classes for unsuitable images
        raise UserError(
            f"network {name!r}: timm can't build it for {in_channels} channel(s) of {image_size[0]}x{image_size[1]} "
            f"pixels ({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error
    patches = getattr(network, "patch_embed", None)
    if isinstance(patches, timm.layers.PatchEmbed) and not patches.dynamic_img_pad:
        height, width = patches.patch_size
        if image_size[0] % height or image_size[1] % width:
            raise UserError(
                f"network {name!r} cuts images into patches of {height}x{width} pixels and would ignore the rest of "
                f"{image_size[0]}x{image_size[1]}; allowed: a data.size that is a multiple of the patch size"
            )
    configuration = network.pretrained_cfg
    assert isinstance(configuration, dict)
    constants = (_per_channel(configuration["mean"], in_channels), _per_channel(configuration["std"], in_channels))
    network.add_module("normalise", Normalise(in_channels, constants))
    network.register_forward_pre_hook(_normalise_first)
    return network


def _normalise_first(network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *rest = args
    return (network.get_submodule("normalise")(images), *rest)


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    statistic = torch.tensor(values)
    return statistic if len(statistic) == channels else statistic.mean().expand(channels).clone()


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except Exception as error:  # a torchvision for another version of torch raises RuntimeError
        raise UserError(
            f"network {name!r} needs timm, which can't be imported ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); pip install 'cgankd[timm]'"
        ) from error
    module: ModuleType = timm
    return module
