"""A network whose passes without gradients are compiled by torch.compile: on a CPU twice as fast and more."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.nets.precision import MixedPrecision

FEWEST_STEPS = 2000  # compiling takes 3 to 12 seconds, and saves 2 to 100 ms of a step
# Weights become constants. One compiler at a time, because a pool of compilers would outlive the passes.
OPTIONS = {"freezing": True, "compile_threads": 1}


def pays(device: torch.device, steps: int) -> bool:
    """Whether compiling a network for so many passes saves time: by the steps alone, so that a resumed run agrees.

    On a GPU it was not measured, so it is not done.
    """
    return device.type == "cpu" and steps >= FEWEST_STEPS and _compiler() is not None


def _compiler() -> str | None:
    """The C++ compiler that torch would call."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


class Compiled:
    """Calls ``network``, in eval mode and with constant weights, through torch.compile where that works.

    The first call compiles, and compares the outputs for its images with those of the network at ``precision`` and at
    float32: they may be twice as far from float32 as the network's own. If they are further, or if the network can't be
    compiled, the network is called as it is.
    """

    def __init__(self, network: nn.Module, precision: MixedPrecision) -> None:
        self.network, self.precision = network, precision
        self.call: Any = None

    def __call__(self, images: Tensor) -> Tensor:
        """The outputs, at the precision of the caller's autocast; inside torch.no_grad()."""
        if self.call is None:
            self.call = self._compiled(images)
        return self.call(images)  # type: ignore[no-any-return]

    def _compiled(self, images: Tensor) -> Any:
        with contextlib.suppress(Exception):  # whatever the compiler does not support
            compiled = torch.compile(self.precision.copy().requires_grad_(False), dynamic=False)
            config = importlib.import_module("torch._inductor.config")  # here, because importing it takes a second
            with config.patch(OPTIONS):  # as ``options`` of torch.compile, freezing has no effect
                outputs = compiled(images)
            with torch.autocast(images.device.type, enabled=False):
                exact = self.network(images)
            allowed = 2 * _distance(self.network(images), exact) + 1e-3 * float(exact.abs().max())
            if _distance(outputs, exact) <= allowed:
                return compiled
        return self.network

    def close(self) -> None:
        """Forget the compiled passes of this process, because torch compiles one function for few networks."""
        if self.call is not None:
            torch._dynamo.reset()
            self.call = None


def _distance(outputs: Tensor, exact: Tensor) -> float:
    return float((outputs.float() - exact.float()).abs().max())
