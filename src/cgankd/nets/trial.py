"""Tries a network on a few images before anything is trained: eval mode, training mode, and gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from cgankd.core.errors import UserError, said
from cgankd.core.plugins import tried
from cgankd.core.runtime import CPU, Fabric
from cgankd.nets import inference
from cgankd.nets.taps import restored, undisturbed
from cgankd.tasks.outputs import why


def check_answers(who: str, network: nn.Module, images: Tensor, num_outputs: int) -> Tensor:
    """The network's outputs in eval mode for float images [B, C, H, W] in [0, 1].

    This also builds lazy layers. Raises UserError, beginning with ``who``, if they are not floats [B, num_outputs], for
    the batch and for its first image alone.
    """
    with undisturbed(network):
        outputs = _run(who, network, images, num_outputs, "")
        _run(who, network, images[:1], num_outputs, "")
    return outputs


def check_predictor(who: str, predictor: Any, images: Tensor, num_outputs: int, fabric: Fabric) -> Tensor:
    """The outputs of a module or another callable for uint8 images [B, C, H, W], as precise as they come.

    Raises UserError, beginning with ``who``, if it is neither, fails, or gives other than floats [B, num_outputs].
    """
    if not callable(predictor) or isinstance(predictor, type):
        raise UserError(f"{who} is {predictor!r}; needed: a torch.nn.Module, or a function of images")
    if isinstance(predictor, nn.Module):
        return check_answers(who, predictor, inference.to_input(images, device(predictor)), num_outputs)
    failed = f"{who}: the call with {len(images)} images failed"
    with tried(failed, f"needed: outputs [B, {num_outputs}]"), torch.no_grad():
        inputs = inference.to_input(images, fabric.device)
        return check_outputs(who, predictor(inputs), inputs, num_outputs)


def check_finite(who: str, outputs: Tensor) -> None:
    """UserError if a network's outputs for training images are not all finite."""
    if not torch.isfinite(outputs).all():
        raise UserError(f"{who}: it gives outputs that are not finite for training images; finite numbers are needed")


def check_state(who: str, network: nn.Module) -> None:
    """UserError if the network's state dict holds anything but tensors, because files of weights hold only tensors."""
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"{who}: entry {name!r} of its state dict is {type(value).__name__}; allowed: tensors")


def check_learns(who: str, network: nn.Module, images: Tensor, num_outputs: int) -> None:
    """Check that the network can be trained on float images [B, C, H, W] in [0, 1]. The network does not change.

    Raises UserError, beginning with ``who``, if its state is not all tensors, its weights are not float32, it has no
    trainable parameter, it fails in training mode, its outputs there are not floats [B, num_outputs], or they depend
    on no parameter.
    """
    check_state(who, network)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not weights:
        raise UserError(f"{who}: it has no trainable parameter (requires_grad is False for all); needed: at least one")
    if dtype := next((weight.dtype for weight in weights if weight.dtype != torch.float32), None):
        raise UserError(
            f"{who}: its weights are {_dtype_name(dtype)}; needed for training: float32, by network.float() "
            "(runtime.precision selects bf16 for the computation)"
        )
    with _training_mode(network), torch.enable_grad():
        outputs = _run(who, network, images, num_outputs, " in training mode")
        check_finite(f"{who}: in training mode", outputs)
        if not outputs.requires_grad:
            raise UserError(
                f"{who}: its outputs in training mode don't depend on its parameters (detached, or computed under "
                "no_grad), so nothing can be learnt"
            )
        try:
            torch.autograd.grad(outputs.sum(), weights, allow_unused=True)
        except Exception as error:  # a user's module may raise any error
            raise UserError(f"{who}: its backward pass fails ({said(error)})") from error


def check_runs(who: str, network: nn.Module, images: Tensor) -> None:
    """UserError, beginning with ``who``, if a network fails on images in eval mode; any output is accepted."""
    with undisturbed(network):
        _call(who, network, images, "")


def check_outputs(who: str, outputs: Any, images: Tensor, num_outputs: int, mode: str = "") -> Tensor:
    """Returns the outputs. UserError, beginning with ``who``, if they are not floats [B, num_outputs]."""
    shape, needed = list(images.shape), [len(images), num_outputs]
    if not isinstance(outputs, Tensor):
        raise UserError(
            f"{who}: for images {shape} it gives {type(outputs).__name__}{mode}; allowed: one tensor {needed}, "
            "the outputs"
        )
    if list(outputs.shape) != needed:
        raise UserError(
            f"{who}: for images {shape} it gives {list(outputs.shape)}{mode}; allowed: a tensor {needed}, "
            f"{why(num_outputs)}"
        )
    if not outputs.is_floating_point():
        raise UserError(
            f"{who}: it gives numbers of type {_dtype_name(outputs.dtype)}{mode}; allowed: floating-point ones"
        )
    return outputs


def device(network: nn.Module) -> torch.device:
    """The device of the network's weights; the CPU for a network without weights."""
    return next((weight.device for weight in network.parameters()), CPU)


def _run(who: str, network: nn.Module, images: Tensor, num_outputs: int, mode: str) -> Tensor:
    return check_outputs(who, _call(who, network, images, mode), images, num_outputs, mode)


def _call(who: str, network: nn.Module, images: Tensor, mode: str) -> Any:
    before = images._version  # counts changes in place
    try:
        outputs = network(images)
    except UserError:
        raise
    except Exception as error:  # a user's module may raise any error
        dtype = next((weight.dtype for weight in network.parameters() if _is_other(weight)), None)
        hint = ""
        if dtype is not None:
            hint = (
                f"; its weights are {_dtype_name(dtype)}, but images are float32; network.float() converts the weights"
            )
        raise UserError(f"{who}: it fails{mode} on images {list(images.shape)} ({said(error)}){hint}") from error
    if images._version != before:  # others get the same images after it, such as a student's teacher
        raise UserError(
            f"{who}: it changes the images that it is given{mode}; needed: x = x - mean, or the like, in place of "
            "x -= mean"
        )
    return outputs


def _is_other(weight: Tensor) -> bool:
    return not isinstance(weight, UninitializedParameter | UninitializedBuffer) and weight.dtype != torch.float32


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextlib.contextmanager
def _training_mode(network: nn.Module) -> Iterator[None]:
    """Inside: training mode. After: modes, buffers and torch's random state are restored."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with restored(network):
            network.train()
            yield
    finally:
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.copy_(buffers[name])
