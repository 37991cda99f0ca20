"""Mixed precision whose last layer is exact: a scalar of bfloat16 has 256 steps in [0, 1] at best."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cgankd.core.errors import UserError
from cgankd.nets.taps import example_images, last_linear, undisturbed


class MixedPrecision:
    """Runs a network in the autocast of ``fabric``, but its last linear layer at float32.

    Where the outputs still come at a lower precision, because no linear layer makes them, all of the network runs at
    float32. The hooks stay on the network until :meth:`close`.
    """

    def __init__(self, network: nn.Module, fabric: Fabric, channels: int, size: tuple[int, int]) -> None:
        self.network, self.fabric = network, fabric
        self._inside: list[torch.autocast] = []
        self._handles: list[RemovableHandle] = []
        self._whole = False
        if lowers(fabric):
            self._hook(example_images(network, channels, size))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context to call the network in."""
        return contextlib.nullcontext() if self._whole else self.fabric.autocast()

    def _hook(self, images: Tensor) -> None:
        try:
            head = last_linear(self.network, images)
        except UserError:  # there is none
            self._whole = True
            return
        self._handles = [
            head.register_forward_pre_hook(self._enter),
            head.register_forward_hook(self._leave, always_call=True),
        ]
        with undisturbed(self.network), self.fabric.autocast():
            self._whole = self.network(images).dtype in (torch.bfloat16, torch.float16)

    def _enter(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        exact = torch.autocast(args[0].device.type, enabled=False)
        exact.__enter__()
        self._inside.append(exact)
        return tuple(value.float() for value in args)

    def _leave(self, layer: nn.Module, args: Any, output: Any) -> None:
        if self._inside:
            self._inside.pop().__exit__(None, None, None)

    def close(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def lowers(fabric: Fabric) -> bool:
    """Whether the autocast of ``fabric`` computes below float32."""
    with fabric.autocast():
        return torch.is_autocast_enabled(fabric.device.type)
