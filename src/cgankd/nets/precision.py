"""Mixed precision with a float32 last layer, because a bfloat16 scalar has at best 256 steps in [0, 1]."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cgankd.core.errors import UserError
from cgankd.core.runtime import Fabric
from cgankd.nets.taps import example_images, last_linear, undisturbed


class MixedPrecision:
    """Runs a network in the autocast of ``fabric``, except its last linear layer, which runs at float32.

    If the outputs still have a lower precision, because no linear layer computes them, the whole network runs at
    float32. The hooks stay on the network until :meth:`close`.
    """

    def __init__(self, network: nn.Module, fabric: Fabric, channels: int, size: tuple[int, int]) -> None:
        self.network, self.fabric = network, fabric
        self._contexts: list[torch.autocast] = []
        self._handles: list[RemovableHandle] = []
        self._all_float32 = False
        self._head: nn.Module | None = None
        if lowers(fabric):
            self._hook(example_images(network, channels, size))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which to call the network."""
        return contextlib.nullcontext() if self._all_float32 else self.fabric.autocast()

    def _hook(self, images: Tensor) -> None:
        try:
            head = last_linear(self.network, images)
        except UserError:  # the network has no linear layer
            self._all_float32 = True
            return
        self._hook_head(head)
        with undisturbed(self.network), self.fabric.autocast():
            self._all_float32 = self.network(images).dtype in (torch.bfloat16, torch.float16)

    def _hook_head(self, head: nn.Module) -> None:
        self._head = head
        self._handles = [
            head.register_forward_pre_hook(self._enter),
            head.register_forward_hook(self._leave, always_call=True),
        ]

    def _enter(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        exact = torch.autocast(args[0].device.type, enabled=False)
        exact.__enter__()
        self._contexts.append(exact)
        return tuple(value.float() for value in args)

    def _leave(self, layer: nn.Module, args: Any, output: Any) -> None:
        if self._contexts:
            self._contexts.pop().__exit__(None, None, None)

    def copy(self) -> nn.Module:
        """A copy that does the same in :meth:`autocast` without hooks, because torch.compile can't follow them."""
        head = self._head
        self.close()
        try:
            network = copy.deepcopy(self.network)
        finally:
            if head is not None:
                self._hook_head(head)
        if head is not None:
            name = next(name for name, module in self.network.named_modules() if module is head)
            network.set_submodule(name, _Exact(network.get_submodule(name)))
        return network

    def close(self) -> None:
        """Remove the hooks from the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class _Exact(nn.Module):
    """A layer that runs at float32 inside autocast."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            return self.layer(values.float())  # type: ignore[no-any-return]


def lowers(fabric: Fabric) -> bool:
    """Whether the autocast of ``fabric`` computes below float32."""
    with fabric.autocast():
        return torch.is_autocast_enabled(fabric.device.type)
