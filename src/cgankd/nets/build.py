"""Networks for the pipeline's stages: created with seeded random weights, saved in an artifact, opened again."""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from cgankd import tasks
from cgankd.core import rng
from cgankd.core.hashing import content_key, file_key, tensor_key
from cgankd.core.plugins import code_key, source_key
from cgankd.core.runtime import Fabric
from cgankd.core.store import Artifact, Work
from cgankd.data.imageset import ImageSet
from cgankd.nets import inference, timm_bridge, zoo
from cgankd.nets.registry import VERSIONS
from cgankd.tasks.outputs import OutputKind

WEIGHTS = "weights"  # the name of the tensors in an artifact that holds a network
BEST = "best"  # the same, of a student: its weights at the best validation score, where WEIGHTS are its last ones


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An untrained network, by name (:mod:`cgankd.nets.zoo`). Its content key depends on the code of that name.

    gives: the kind of its outputs, if they must be converted; None: they are used as they are.
    """

    name: str
    gives: OutputKind | None = None

    @property
    def content_key(self) -> str:
        kind = [] if self.gives is None else [self.gives.content_key]
        return content_key(self.name, _code_version(self.name), *kind)

    def create(self, channels: int, size: tuple[int, int], outputs: int) -> nn.Module:
        """With random weights from torch's global generator. Raises UserError as :func:`cgankd.nets.zoo.create`."""
        network = zoo.create(self.name, channels, outputs, size)
        if self.gives is not None:
            network.register_forward_hook(_Converting(self.gives))
        return network


class _Converting:
    """A forward hook that converts a network's outputs to those that losses take."""

    def __init__(self, gives: OutputKind) -> None:
        self.gives = gives

    def __call__(self, network: nn.Module, images: Any, outputs: Tensor) -> Tensor:
        return self.gives(outputs)


class Converted(nn.Module):
    """A module of the user's own program, with its outputs converted to those that losses take."""

    def __init__(self, module: nn.Module, gives: OutputKind) -> None:
        super().__init__()
        self.module, self.gives = module, gives

    def forward(self, images: Tensor) -> Tensor:
        return self.gives(self.module(images))

    def __getattr__(self, name: str) -> Any:
        """An attribute of its own, or else of the module, which may describe its layers in one."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _code_version(name: str) -> str:
    """The part of the content key that changes with the code: the user's code, timm's version, or the network's."""
    if name.startswith(timm_bridge.PREFIX):
        return f"timm {importlib.metadata.version('timm')}"
    if ":" in name:
        return code_key(name)
    return f"version {VERSIONS.get(name.partition('+')[0], 1)}"


class NetworkSource(Protocol):
    """A network or a black-box teacher, which a stage opens when it needs it."""

    @property
    def content_key(self) -> str:
        """Depends on everything that its outputs depend on."""

    def open(self, fabric: Fabric) -> inference.Predictor:
        """Ready to be called, on the device of ``fabric``."""


@dataclasses.dataclass(frozen=True)
class StoredNetwork:
    """A network that a stage saved with :func:`keep_network`. weights: the name of its tensors, WEIGHTS or BEST."""

    artifact: Artifact
    weights: str = WEIGHTS

    @property
    def content_key(self) -> str:
        key = self.artifact.content_key
        return key if self.weights == WEIGHTS else content_key(key, self.weights)

    def open(self, fabric: Fabric) -> nn.Module:
        """In eval mode, on the device."""
        built = self.artifact.summary["built"]
        gives = built.get("gives")
        kind = None if gives is None else OutputKind(tasks.from_json(gives["task"]), gives["kind"])
        architecture = Architecture(built["network"], kind)
        with rng.restored():  # for weights that are overwritten
            network = architecture.create(built["channels"], tuple(built["size"]), built["outputs"])
        network.load_state_dict(self.artifact.tensors(self.weights))
        return inference.place(network, fabric).eval()


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleNetwork:
    """A module of the user's own program. Its content key depends on its weights and all buffers, on which weights are
    frozen, on the files of its classes, and on the decimals, texts, tuples, truth values and functions among the
    attributes of its parts.

    gives: the kind of its outputs, if they must be converted; None: they are used as they are. seen: its outputs for a
    few images, which tell networks apart that differ in what no key can read, such as a number of repetitions.
    """

    module: nn.Module
    gives: OutputKind | None = None
    seen: Tensor | None = None

    @property
    def content_key(self) -> str:
        tensors = {**dict(self.module.named_buffers()), **self.module.state_dict()}  # with buffers that are not saved
        state = {name: tensor_key(value) for name, value in tensors.items()} | _constants(self.module)
        kind = [] if self.gives is None else [self.gives.content_key]
        frozen = [name for name, weight in self.module.named_parameters() if not weight.requires_grad]
        seen = [] if self.seen is None else [tensor_key(_rounded(self.seen))]
        return content_key(_module_files(self.module), str(self.module), state, *kind, *frozen, *seen)

    def open(self, fabric: Fabric) -> nn.Module:
        """The module itself, in eval mode, on the device."""
        module = self.module if self.gives is None else Converted(self.module, self.gives)
        return inference.place(module, fabric).eval()


@dataclasses.dataclass(frozen=True, eq=False)
class ConvertedFunction:
    """A callable with its outputs converted to the kind that losses take."""

    function: inference.Predictor
    gives: OutputKind

    def __call__(self, images: Tensor) -> Tensor:
        return self.gives(self.function(images))


@dataclasses.dataclass(frozen=True, eq=False)
class CallableTeacher:
    """A callable as a teacher. It has no weights to hash, so its content key is that of its code and of its outputs for
    a few images and mixtures of them. It gets a copy of the images, so that it may change them."""

    function: inference.Predictor
    content_key: str

    def open(self, fabric: Fabric) -> inference.Predictor:
        """Returns itself."""
        return self

    def __call__(self, images: Tensor) -> Tensor:
        return self.function(images.clone())


def fresh_copy(module: nn.Module) -> nn.Module:
    """A copy of a module, whose weights can be trained whatever passes it has seen.

    Python's deepcopy fails where an attribute holds a tensor of a graph: a map that forward keeps, or the weight of
    weight_norm, which every pass computes anew. It makes such tensors of the weights of a TorchScript module.
    """
    copied = copy.deepcopy(module, {id(value): value.detach() for value in _computed(module)})
    for weight, own in zip(copied.parameters(), module.parameters(), strict=True):
        if not weight.is_leaf:
            weight.detach_().requires_grad_(own.requires_grad)
    return copied


def _computed(module: nn.Module) -> Iterator[Tensor]:
    """The tensors of a graph in attributes, and in lists, tuples and dicts there, which may hold themselves."""
    waiting: list[Any] = [vars(part) for part in module.modules()]
    seen = set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor) and not value.is_leaf:
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def _rounded(outputs: Tensor) -> Tensor:
    """In thousandths of the largest, because the last digits depend on the number of threads."""
    values = outputs.detach().double().cpu()
    return (values / values.abs().max().clamp(min=1e-30) * 1000).round() + 0.0  # no negative zeros


def _constants(module: nn.Module) -> dict[str, str]:
    """Decimals, texts, tuples, truth values and functions, by the names of the attributes that hold them; whole numbers
    are often counters, and ``str(module)`` shows those of torch's own classes."""
    every = vars(nn.Module())
    return {
        f"{name}.{attribute}": f"{value.__qualname__} {source_key(value)}" if inspect.isroutine(value) else repr(value)
        for name, part in module.named_modules()
        if type(part).__module__.partition(".")[0] != "torch"
        for attribute, value in vars(part).items()
        if inspect.isroutine(value)
        or (isinstance(value, bool) and attribute not in every)
        or isinstance(value, float | str)
        or (isinstance(value, tuple) and _plain(value))
    }


def _plain(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, int | float | str) for value in values)


def _module_files(module: nn.Module) -> Mapping[str, str]:
    """The content keys of the files that define a module's classes; torch's own are left out."""
    files: dict[str, str] = {}
    for kind in {type(part) for part in module.modules()}:
        if kind.__module__.partition(".")[0] == "torch":
            continue
        try:
            files[f"{kind.__module__}.{kind.__qualname__}"] = file_key(Path(inspect.getfile(kind)))
        except (OSError, TypeError):  # a class defined in a notebook or a shell has no file
            files[f"{kind.__module__}.{kind.__qualname__}"] = ""
    return files


def fresh_network(network: Architecture, images: ImageSet, outputs: int, seed: int) -> nn.Module:
    """A new network for these images, with random weights from ``seed``; it normalises by the images' statistics."""
    with rng.seeded(seed, "weights"):
        created = network.create(images.channels, images.size, outputs)
    zoo.fix_normalisation(created, *images.pixel_statistics)
    return created


def keep_network(
    work: Work, network: nn.Module, architecture: Architecture, images: ImageSet, outputs: int
) -> dict[str, Any]:
    """Write the weights. Returns the part of the artifact's summary that :class:`StoredNetwork` reads."""
    work.save(WEIGHTS, network.state_dict())
    gives = architecture.gives
    conversion = {} if gives is None else {"gives": {"kind": gives.kind, "task": gives.task.to_json()}}
    return {
        "built": {
            "network": architecture.name,
            "channels": images.channels,
            "size": list(images.size),
            "outputs": outputs,
            **conversion,
        }
    }
