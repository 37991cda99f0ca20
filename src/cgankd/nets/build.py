"""Networks as stages need them: made with the random weights of a seed, kept as an artifact, opened again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import tasks
from cgankd.core import rng
from cgankd.core.hashing import content_key, file_key, tensor_key
from cgankd.core.plugins import code_key
from cgankd.core.store import Artifact, Work
from cgankd.data.imageset import ImageSet
from cgankd.nets import inference, timm_bridge, zoo
from cgankd.nets.registry import VERSIONS
from cgankd.tasks.outputs import OutputKind

WEIGHTS = "weights"  # the tensors of an artifact that holds a network


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network by name (:mod:`cgankd.nets.zoo`), untrained. Its content key follows the code behind the name.

    gives: the kind of its own outputs, where they are to become others; None: they stay.
    """

    name: str
    gives: OutputKind | None = None

    @property
    def content_key(self) -> str:
        given = [] if self.gives is None else [self.gives.content_key]
        return content_key(self.name, _code(self.name), *given)

    def create(self, channels: int, size: tuple[int, int], outputs: int) -> nn.Module:
        """Random weights from torch's global generator; UserError as :func:`cgankd.nets.zoo.create`."""
        network = zoo.create(self.name, channels, outputs, size)
        if self.gives is not None:
            network.register_forward_hook(_Converting(self.gives))
        return network


class _Converting:
    """A hook that turns what a network gives into what losses take."""

    def __init__(self, gives: OutputKind) -> None:
        self.gives = gives

    def __call__(self, network: nn.Module, images: Any, outputs: Tensor) -> Tensor:
        return self.gives(outputs)


class Converted(nn.Module):
    """A module of the user's own whose outputs become those that losses take; the module stays as it is."""

    def __init__(self, module: nn.Module, gives: OutputKind) -> None:
        super().__init__()
        self.module, self.gives = module, gives

    def forward(self, images: Tensor) -> Tensor:
        return self.gives(self.module(images))

    def __getattr__(self, name: str) -> Any:
        """Its own, or the module's: what a network says of its layers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _code(name: str) -> str:
    """What tells two networks of one name apart: the user's own code, the version of timm, or that of the network."""
    if name.startswith(timm_bridge.PREFIX):
        return f"timm {importlib.metadata.version('timm')}"
    if ":" in name:
        return code_key(name)
    return f"version {VERSIONS.get(name.partition('+')[0], 1)}"


class NetworkSource(Protocol):
    """A network, or whatever answers in its place, that a stage opens when it needs it."""

    @property
    def content_key(self) -> str:
        """Names what it answers by."""

    def open(self, fabric: Fabric) -> inference.Predictor:
        """Ready to answer, on the device of ``fabric``."""


@dataclasses.dataclass(frozen=True)
class StoredNetwork:
    """The network that a stage kept by :func:`keep_network`."""

    artifact: Artifact

    @property
    def content_key(self) -> str:
        return self.artifact.content_key

    def open(self, fabric: Fabric) -> nn.Module:
        """In eval mode, on the device."""
        built = self.artifact.summary["built"]
        gives = built.get("gives")
        kind = None if gives is None else OutputKind(tasks.from_json(gives["task"]), gives["kind"])
        architecture = Architecture(built["network"], kind)
        network = architecture.create(built["channels"], tuple(built["size"]), built["outputs"])
        network.load_state_dict(self.artifact.tensors(WEIGHTS))
        return inference.place(network, fabric).eval()


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleNetwork:
    """A module of the user's own program. Its content key follows its weights and the file of its class.

    gives: the kind of its outputs, where they are to become others; None: they stay.
    """

    module: nn.Module
    gives: OutputKind | None = None

    @property
    def content_key(self) -> str:
        state = {name: tensor_key(value) for name, value in self.module.state_dict().items()}
        given = [] if self.gives is None else [self.gives.content_key]
        return content_key(_module_code(self.module), str(self.module), state, *given)

    def open(self, fabric: Fabric) -> nn.Module:
        """The module itself, in eval mode, on the device."""
        module = self.module if self.gives is None else Converted(self.module, self.gives)
        return inference.place(module, fabric).eval()


def _module_code(module: nn.Module) -> Mapping[str, str]:
    """The files of the classes that a module is made of, torch's own left out."""
    files: dict[str, str] = {}
    for kind in {type(part) for part in module.modules()}:
        if kind.__module__.partition(".")[0] == "torch":
            continue
        try:
            files[f"{kind.__module__}.{kind.__qualname__}"] = file_key(Path(inspect.getfile(kind)))
        except (OSError, TypeError):  # a class typed into a notebook or a shell has no file
            files[f"{kind.__module__}.{kind.__qualname__}"] = ""
    return files


def fresh_network(network: Architecture, images: ImageSet, outputs: int, seed: int) -> nn.Module:
    """A network for such images with the random weights of ``seed``; its inputs are normalised by these images."""
    with torch.random.fork_rng([]):
        torch.manual_seed(rng.key(seed, "weights"))
        made = network.create(images.channels, images.size, outputs)
    zoo.fix_normalisation(made, *images.pixel_statistics)
    return made


def keep_network(
    work: Work, network: nn.Module, architecture: Architecture, images: ImageSet, outputs: int
) -> dict[str, Any]:
    """Write the weights; what belongs into the summary so that :class:`StoredNetwork` opens them."""
    work.save(WEIGHTS, network.state_dict())
    gives = architecture.gives
    given = {} if gives is None else {"gives": {"kind": gives.kind, "task": gives.task.to_json()}}
    return {
        "built": {
            "network": architecture.name,
            "channels": images.channels,
            "size": list(images.size),
            "outputs": outputs,
            **given,
        }
    }
