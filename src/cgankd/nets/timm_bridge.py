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
    """The network that timm calls ``name`` less the prefix, a tag such as ``.a1_in1k`` included.

    Its first layer, ``normalise``, holds the mean and std that timm's configuration of the name gives; of three
    channels their average where the images are grey. It stands before timm's own layers without changing a tensor's
    name, so that a .safetensors file of timm's weights fits as it is.

    Raises UserError where timm is not installed, has no such network, or can't make it for these images.
    """
    timm = _timm(name)
    own_name = name.removeprefix(PREFIX)
    if not timm.is_model(own_name):  # which refuses hf-hub: and the like, too
        hint = did_you_mean(name, (PREFIX + known for known in timm.list_models()))
        raise UserError(f"network {name!r} is not known to timm {timm.__version__}{hint}; allowed: timm.list_models()")
    try:
        described = timm.get_pretrained_cfg(own_name)
    except RuntimeError:  # its word for a tag that it does not know
        kind, _, tag = own_name.partition(".")
        known = ", ".join(timm.list_pretrained(f"{kind}.*")) or "it without a tag"
        raise UserError(f"network {name!r}: timm knows no weights {tag!r} of {kind}; allowed: {known}") from None
    size = {"img_size": image_size} if described is not None and described.fixed_input_size else {}
    try:
        network: nn.Module = timm.create_model(
            own_name, pretrained=False, num_classes=num_outputs, in_chans=in_channels, **size
        )
    except Exception as error:  # whatever a family of timm's makes of images it is not for
        raise UserError(
            f"network {name!r}: timm can't make it for {in_channels} channel(s) of {image_size[0]}x{image_size[1]} "
            f"pixels ({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error
    cut = getattr(network, "patch_embed", None)
    if isinstance(cut, timm.layers.PatchEmbed) and not cut.dynamic_img_pad:
        high, wide = cut.patch_size
        if image_size[0] % high or image_size[1] % wide:
            raise UserError(
                f"network {name!r} cuts images into patches of {high}x{wide} pixels and would lose the rest of "
                f"{image_size[0]}x{image_size[1]}; allowed: a data.size that is a multiple"
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
    found = torch.tensor(values)
    return found if len(found) == channels else found.mean().expand(channels).clone()


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except Exception as error:  # a torchvision that doesn't fit the torch beside it raises RuntimeError
        raise UserError(
            f"network {name!r} needs timm, which can't be imported ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); pip install 'cgankd[timm]'"
        ) from error
    found: ModuleType = timm
    return found
