"""Named features of any network, for feature-based distillation and the density ratio."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cgankd.core import rng
from cgankd.core.errors import UserError

PENULTIMATE = "penultimate"  # the input of the last nn.Linear that a forward pass executes

# prefixes that torch.compile, Fabric and DistributedDataParallel add to the names of layers
_WRAPPERS = ("_forward_module.", "_original_module.", "_orig_mod.", "module.")


class Taps:
    """Calls a network, and returns chosen features beside its outputs.

    names: layers as in ``network.named_modules()``, for their output (of a layer that runs twice, the last output);
    or :data:`PENULTIMATE`, for the input of the last nn.Linear that is executed. One pass in eval mode, at the first
    call, finds that layer. Features are returned unchanged: on the autograd graph, maps 4-D, in autocast's dtype.

    The hooks stay on the network until :meth:`close` or the end of the ``with`` block; outside a call of the taps
    they do nothing. Raises UserError for a layer that doesn't exist, isn't executed, returns no tensor, or whose
    output a later layer overwrites in place, and for PENULTIMATE if the network has no nn.Linear.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    >>> with Taps(network, ["0", PENULTIMATE]) as taps:
    ...     outputs, features = taps(torch.rand(2, 3, 16, 16))
    >>> outputs.shape, features["0"].shape, features["penultimate"].shape
    (torch.Size([2, 10]), torch.Size([2, 4, 14, 14]), torch.Size([2, 4]))
    """

    def __init__(self, network: nn.Module, names: Iterable[str]) -> None:
        self.network = network
        self.names = tuple(names)
        self._handles: list[RemovableHandle] = []
        self._features: dict[str, Tensor] | None = None  # None outside a call
        self._versions: dict[str, int] = {}
        self._closed = False
        self._penultimate_pending = PENULTIMATE in self.names
        if self._penultimate_pending:
            _linear_layers(network)  # so that the error comes before training, not at its first step
        layers = {name: _layer(network, name) for name in self.names if name != PENULTIMATE}
        for name, layer in layers.items():
            self._handles.append(layer.register_forward_hook(self._output_hook(name)))

    def __call__(self, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Images [B, C, H, W] -> (the network's outputs, features by name, in the order of ``names``)."""
        if self._closed:
            raise RuntimeError("these taps are closed; create new ones")
        if self._penultimate_pending:
            last = last_linear(self.network, images[:2])
            hook = self._input_hook(PENULTIMATE)
            self._handles.append(last.register_forward_pre_hook(hook, with_kwargs=True))
            self._penultimate_pending = False
        features = self._features = {}
        try:
            outputs = self.network(images)
            self._check(features)
        finally:
            self._features = None
            self._versions.clear()
        return outputs, {name: features[name] for name in self.names}

    def close(self) -> None:
        """Remove the hooks from the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._closed = True

    def __enter__(self) -> Taps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Hooks are plain functions, not bound methods. Otherwise copy.deepcopy of a tapped network (for an average
    # of its weights) would copy the taps too, and through them the network a second time.
    def _output_hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, args: Any, output: Any) -> None:
            self._record(name, output)

        return hook

    def _input_hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._record(name, args[0] if args else kwargs["input"])

        return hook

    def _record(self, name: str, value: Any) -> None:
        if self._features is None:
            return
        if not isinstance(value, Tensor):
            raise UserError(
                f"layer {name!r} of {_name(self.network)} returns {type(value).__name__}; "
                "allowed: a layer that returns one tensor"
            )
        self._features[name] = value
        if not value.is_inference():  # inference tensors have no version counter
            self._versions[name] = value._version

    def _check(self, features: dict[str, Tensor]) -> None:
        for name in self.names:
            if name not in features:
                raise UserError(
                    f"layer {name!r} of {_name(self.network)} is not executed in its forward pass; "
                    "allowed: a layer that is executed"
                )
            if name in self._versions and features[name]._version != self._versions[name]:
                raise UserError(
                    f"the output of layer {name!r} of {_name(self.network)} is overwritten in place by a later "
                    "layer (such as nn.ReLU(inplace=True)); allowed: the name of that later layer"
                )


def feature_shapes(
    network: nn.Module, names: Iterable[str], channels: int, size: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Shape of each feature without its batch dimension, for images of ``channels`` and ``size`` (height, width).

    One pass finds them and changes nothing in the network. Raises UserError as :class:`Taps` does.
    """
    with undisturbed(network), Taps(network, names) as taps:
        _, features = taps(example_images(network, channels, size))
    return {name: tuple(feature.shape[1:]) for name, feature in features.items()}


def example_images(network: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """Two grey images [2, channels, *size], on the device and of the dtype of the network's parameters."""
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.full((2, channels, *size), 0.5, device=weight.device, dtype=weight.dtype)


@contextlib.contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Inside: eval mode, no gradients. After: every layer's mode and torch's random state are restored.

    In eval mode the running statistics of batch normalisation don't change.
    """
    with restored(network), torch.no_grad():
        for module in network.modules():
            module.training = False  # not .eval(), because a network may override it
        yield


@contextlib.contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """After: every layer's mode and torch's random state are as before."""
    try:
        with kept_modes(network), rng.restored(*{weight.device for weight in network.parameters()}):
            yield
    finally:
        # Older torch would reuse weights that autocast cast under no_grad, and give them no gradient.
        torch.clear_autocast_cache()


@contextlib.contextmanager
def kept_modes(network: nn.Module) -> Iterator[None]:
    """After: every layer's mode is as before. Not by train(), because a user may keep some layers in eval mode."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _layer(network: nn.Module, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = {}
    for full_name, module in network.named_modules(remove_duplicate=False):
        layers.setdefault(_unwrapped(full_name), module)
        layers.setdefault(full_name, module)
    layers.pop("")
    if name in layers:
        return layers[name]
    near = difflib.get_close_matches(name, layers, n=3, cutoff=0.5)
    if near:
        hint = f"close: {', '.join(near)}"
    else:
        hint = f"allowed: {', '.join(child for child in layers if '.' not in child)}, and layers inside these"
    raise UserError(f"{_name(network)} has no layer {name!r}; {hint}, or {PENULTIMATE!r}")


def _unwrapped(name: str) -> str:
    while True:
        wrapper = next((prefix for prefix in _WRAPPERS if name.startswith(prefix)), None)
        if wrapper is None:
            return name
        name = name.removeprefix(wrapper)


def _linear_layers(network: nn.Module) -> list[nn.Linear]:
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError(
            f"{_name(network)} has no nn.Linear, whose input would be the {PENULTIMATE!r} feature; allowed: a network "
            "that has one, or a method that reads only outputs or maps"
        )
    return layers


def last_linear(network: nn.Module, images: Tensor) -> nn.Linear:
    """The last nn.Linear that a pass over ``images`` executes. Raises UserError if there is none."""
    executed: list[nn.Linear] = []

    def record(layer: nn.Module, args: Any) -> None:
        assert isinstance(layer, nn.Linear)
        executed.append(layer)

    handles = [layer.register_forward_pre_hook(record) for layer in _linear_layers(network)]
    try:
        with undisturbed(network):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    if not executed:
        raise UserError(
            f"{_name(network)} executes no nn.Linear, whose input would be the {PENULTIMATE!r} feature; allowed: a "
            "network that executes one, or a method that reads only outputs or maps"
        )
    return executed[-1]


def _name(network: nn.Module) -> str:
    return f"network {type(network).__name__}"
