"""``timm/NAME``: any network of the timm library, with its own normalisation in front, and its published weights.

A network is built with random weights, without a download. Published weights are downloaded only where a setting asks
for them (``start: timm/NAME``), once, into the cache of huggingface_hub.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.core import extras
from cgankd.core.errors import UserError, did_you_mean, said
from cgankd.nets.layers import Normalise

PREFIX = "timm/"
WEIGHTS = "model.safetensors"  # in the repositories of timm's networks on the hub


def create(name: str, in_channels: int, num_outputs: int, image_size: tuple[int, int]) -> nn.Module:
    """The network that timm knows as ``name`` without the prefix; a tag such as ``.a1_in1k`` is allowed.

    Its first layer, ``normalise``, has the mean and std of timm's configuration for the name, averaged over the three
    channels if the images are grey. It runs before timm's layers and changes no tensor's name, so a .safetensors file
    of timm's weights fits.

    Raises UserError if timm is not installed, has no such network, or can't build it for these images.
    """
    who = f"network {name!r}"
    timm = extras.opened("timm", who, "timm")
    own_name, config = _known(timm, name, who)
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
    network.add_module("normalise", _normalise(in_channels, configuration["mean"], configuration["std"]))
    network.register_forward_pre_hook(_normalise_first)
    return network


def published_weights(start: str, setting: str) -> Path:
    """The .safetensors file of the weights that timm publishes as ``start``: timm/NAME, or timm/NAME.TAG for others.

    It is downloaded from the hub unless its cache has it. setting: the name of the setting in messages. Raises
    UserError if timm is not installed or knows no such weights, or if the hub can't be reached.
    """
    who = f"{setting} = {start!r}"
    timm = extras.opened("timm", who, "timm")
    own_name, config = _known(timm, start, who)
    repository = config.hf_hub_id if config is not None else None
    if not repository:
        known = ", ".join(timm.list_pretrained(f"{own_name.partition('.')[0]}.*")) or "another network's"
        raise UserError(f"{who}: timm publishes no weights of it on the hub; allowed: {known}")
    import huggingface_hub  # timm needs it

    try:
        return Path(huggingface_hub.hf_hub_download(repository, WEIGHTS))
    except Exception as error:  # errors of many classes: of the network, of the repository, of the disk
        raise UserError(
            f"{who}: {WEIGHTS} of {repository} can't be downloaded from the hub: {said(error)}; "
            "needed: a connection to the hub, or the weights as a .safetensors file"
        ) from None


def check_normalisation(network: nn.Module, start: str, setting: str) -> None:
    """UserError if a network of timm normalises otherwise than the published weights ``start`` were trained with.

    Of some networks timm publishes weights with several normalisations, and a network has that of its own name.
    """
    layer = getattr(network, "normalise", None)
    if not isinstance(layer, Normalise) or not layer.constant:
        return
    who = f"{setting} = {start!r}"
    _, config = _known(extras.opened("timm", who, "timm"), start, who)
    needed = _normalise(layer.mean.shape[1], config.mean, config.std)
    if not torch.allclose(layer.mean, needed.mean) or not torch.allclose(layer.std, needed.std):
        raise UserError(
            f"{who}: these weights were trained with images normalised by {_constants(needed)}, but the network "
            f"normalises by {_constants(layer)}; allowed: {setting.rpartition('.')[0]}.network={start}"
        )


def _constants(layer: Normalise) -> str:
    mean, std = (",".join(f"{value:.4g}" for value in part.flatten().tolist()) for part in (layer.mean, layer.std))
    return f"mean {mean} and std {std}"


def _known(timm: ModuleType, name: str, who: str) -> tuple[str, Any]:
    """timm's own name, and its configuration of the weights or None. who: begins the message of a UserError."""
    own_name = name.removeprefix(PREFIX)
    if not timm.is_model(own_name):  # this refuses hf-hub: and other remote names too
        hint = did_you_mean(name, (PREFIX + known for known in timm.list_models()))
        raise UserError(f"{who} is not known to timm {timm.__version__}{hint}; allowed: timm.list_models()")
    try:
        return own_name, timm.get_pretrained_cfg(own_name)
    except RuntimeError:  # timm raises it for an unknown tag
        kind, _, tag = own_name.partition(".")
        known = ", ".join(timm.list_pretrained(f"{kind}.*")) or "it without a tag"
        raise UserError(f"{who}: timm knows no weights {tag!r} of {kind}; allowed: {known}") from None


def _normalise_first(network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *rest = args
    return (network.get_submodule("normalise")(images), *rest)


def _normalise(channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Normalise:
    return Normalise(channels, (_per_channel(mean, channels), _per_channel(std, channels)))


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    statistic = torch.tensor(values)
    return statistic if len(statistic) == channels else statistic.mean().expand(channels).clone()
