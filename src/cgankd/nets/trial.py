"""A network is tried on a few images before anything is trained: in both modes, and backwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from cgankd.core.errors import UserError
from cgankd.core.plugins import said
from cgankd.nets.taps import undisturbed


def check_answers(who: str, network: nn.Module, images: Tensor, num_outputs: int) -> Tensor:
    """The network's outputs in eval mode for float images [B, C, H, W] in [0, 1].

    A lazily built network is built then. Raises UserError, beginning with ``who``, where they are not float numbers
    [B, num_outputs], for one image alone too.
    """
    with undisturbed(network):
        outputs = _run(who, network, images, num_outputs, "")
        _run(who, network, images[:1], num_outputs, "")
    return outputs


def check_finite(who: str, outputs: Tensor) -> None:
    """UserError where a network's outputs for real images are not all finite."""
    if not torch.isfinite(outputs).all():
        raise UserError(f"{who}: it gives outputs that are not finite for training images; finite numbers are needed")


def check_state(who: str, network: nn.Module) -> None:
    """UserError where the network's state dict holds something else than tensors, which no file of weights can hold."""
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"{who}: entry {name!r} of its state dict is {type(value).__name__}; allowed: tensors")


def check_learns(who: str, network: nn.Module, images: Tensor, num_outputs: int) -> None:
    """Whether the network can be trained on float images [B, C, H, W] in [0, 1]; it is left as it was.

    Raises UserError, beginning with ``who``, where its state is not all tensors, it is not of float32, has no
    parameter to train, fails in training mode, gives something else there than float numbers [B, num_outputs], or
    outputs that no parameter changes.
    """
    check_state(who, network)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not weights:
        raise UserError(
            f"{who}: no parameter of it can be trained (requires_grad is False everywhere); needed: one at least"
        )
    if other := next((weight.dtype for weight in weights if weight.dtype != torch.float32), None):
        raise UserError(
            f"{who}: its weights are {_named(other)}; needed for training: float32, as network.float() makes them "
            "(runtime.precision sets what is computed in bf16)"
        )
    with _trained(network), torch.enable_grad():
        outputs = _run(who, network, images, num_outputs, " in training mode")
        check_finite(f"{who}: in training mode", outputs)
        if not outputs.requires_grad:
            raise UserError(
                f"{who}: its outputs in training mode don't depend on its parameters (detached, or made under "
                "no_grad), so nothing can be learnt"
            )
        try:
            torch.autograd.grad(outputs.sum(), weights, allow_unused=True)
        except Exception as error:  # whatever a user's module raises
            raise UserError(f"{who}: no gradient goes back through it ({said(error)})") from error


def check_runs(who: str, network: nn.Module, images: Tensor) -> None:
    """UserError, beginning with ``who``, where a network fails on images in eval mode, whatever it gives."""
    with undisturbed(network):
        _called(who, network, images, "")


def check_outputs(who: str, outputs: Any, images: Tensor, num_outputs: int, mode: str = "") -> Tensor:
    """Outputs for ``images``; UserError, beginning with ``who``, where they are not float numbers [B, num_outputs]."""
    shown, needed = list(images.shape), [len(images), num_outputs]
    if not isinstance(outputs, Tensor):
        raise UserError(
            f"{who}: for images {shown} it gives {type(outputs).__name__}{mode}; allowed: a tensor {needed}, the "
            "outputs alone"
        )
    if list(outputs.shape) != needed:
        raise UserError(f"{who}: for images {shown} it gives {list(outputs.shape)}{mode}; allowed: a tensor {needed}")
    if not outputs.is_floating_point():
        raise UserError(f"{who}: it gives numbers of type {_named(outputs.dtype)}{mode}; allowed: floating-point ones")
    return outputs


def device(network: nn.Module) -> torch.device:
    """Where the network's weights lie; of one without weights, the processor."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


def _run(who: str, network: nn.Module, images: Tensor, num_outputs: int, mode: str) -> Tensor:
    return check_outputs(who, _called(who, network, images, mode), images, num_outputs, mode)


def _called(who: str, network: nn.Module, images: Tensor, mode: str) -> Any:
    try:
        return network(images)
    except UserError:
        raise
    except Exception as error:  # whatever a user's module raises
        other = next((weight.dtype for weight in network.parameters() if _is_other(weight)), None)
        hint = ""
        if other is not None:
            hint = f"; its weights are {_named(other)}, but images are float32, as network.float() makes weights"
        raise UserError(f"{who}: it fails{mode} on images {list(images.shape)} ({said(error)}){hint}") from error


def _is_other(weight: Tensor) -> bool:
    return not isinstance(weight, UninitializedParameter | UninitializedBuffer) and weight.dtype != torch.float32


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextlib.contextmanager
def _trained(network: nn.Module) -> Iterator[None]:
    """Inside: training mode. After: modes, buffers and torch's random state are as they were."""
    modes = [(module, module.training) for module in network.modules()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=devices):
            network.train()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.copy_(buffers[name])
        torch.clear_autocast_cache()
