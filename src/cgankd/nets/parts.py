"""Several processes hold one network in parts while it is trained (FSDP), because a large one does not fit into each.

Each process keeps its part of every weight, gradient and momentum. The whole weights of a block are collected before
the block computes, and dropped afterwards. Everything else is as with whole networks (core/shared_rows.py), so the
weights that are learnt are the same.
"""

from __future__ import annotations

import collections
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.core import ranks
from cgankd.core.errors import UserError, said
from cgankd.core.runtime import Fabric, weights_mesh
from cgankd.core.shared_rows import batch_statistics
from cgankd.core.shared_weights import is_divided, whole
from cgankd.nets.taps import example_images, restored, undisturbed


def in_parts(network: nn.Module, fabric: Fabric, channels: int, size: tuple[int, int]) -> nn.Module:
    """A copy of the network, on the device, whose weights lie in parts in all processes; the network itself where
    ``runtime.strategy`` has each process hold it whole.

    All processes must call this, and later the copy, equally often. Raises UserError for a network that computes
    something else in parts, as one may that reads the weights of a layer without calling it.
    """
    mesh = weights_mesh(fabric)
    if mesh is None or ranks.share()[1] == 1:
        return network
    from torch.distributed.fsdp import fully_shard

    # FSDP takes no weights in channels-last layout
    split = copy.deepcopy(network.to("cpu")).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = example_images(split, channels, size)
    with undisturbed(split):
        blocks = list(dict.fromkeys(_blocks(split, images)))  # two lists may have the same module
    expected, again = _pass(split, images), _pass(split, images)  # unequal where the network draws random numbers
    images = images.to(fabric.device)
    # of views that a block returns; whether gradients are right is seen below
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    try:
        with ranks.exchanges_of_torch():
            for block in [*blocks, split]:
                # the default keeps the network's own weights whole after a pass, even one that no backward pass follows
                _add_up_gradients(fully_shard(block, mesh=mesh["data_parallel"], reshard_after_forward=True))
            _check_calls(split, blocks)
            found = _pass(split, images)
            _try_to_train(split, images)
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(said(error)) from error
    if _alike(again, expected) and not _alike(found, expected):
        raise _refused("its outputs or gradients differ from those of the whole network")
    return split


def put_together(split: nn.Module, network: nn.Module) -> None:
    """Give ``network`` the weights of its copy in parts. All processes must call this."""
    if split is network:
        return
    own = network.state_dict()
    for name, value in split.state_dict().items():
        own[name].copy_(whole(value))


Passed = tuple[Tensor, Tensor]  # outputs; for each weight, two numbers that tell its gradient from others


def _pass(network: nn.Module, images: Tensor) -> Passed:
    """A pass in eval mode, with the gradients of all processes added up, which all have the same images."""
    with restored(network), torch.enable_grad():
        for module in network.modules():
            module.training = False
        outputs = network(images)
        if outputs.requires_grad:
            outputs.square().sum().backward()
    marks = [torch.zeros(2)]
    for weight in network.parameters():
        if weight.grad is not None:
            gradient = whole(weight.grad).flatten().cpu() * (1 if is_divided(weight) else ranks.share()[1])
            marks.append(torch.stack([gradient.norm(), gradient @ torch.arange(len(gradient)).cos()]))
        else:
            marks.append(torch.zeros(2))
    network.zero_grad()
    return outputs.detach().float().cpu(), torch.stack(marks)


def _try_to_train(split: nn.Module, images: Tensor) -> None:
    """A pass as in training, in which a network may read other weights, or change the input of a block in place.

    Afterwards weights, buffers, gradients and modes are as before.
    """
    buffers = {name: buffer.clone() for name, buffer in split.named_buffers()}
    with restored(split), batch_statistics():
        outputs = split.train()(images)
        if outputs.requires_grad:
            outputs.sum().backward()
    split.zero_grad()
    for name, value in buffers.items():
        split.get_buffer(name).data = value


def _check_calls(split: nn.Module, blocks: list[nn.Module]) -> None:
    """From now on, a pass ends with UserError where the processes don't call the same blocks in the same order.

    Without it, one would get the weights of another block, or wait forever, in a network whose calls depend on images.
    """

    def check(place: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if not ranks.alike(place):
                raise _refused("which blocks it calls depends on the images or on random numbers")

        return hook

    for place, block in enumerate(blocks):
        block.register_forward_pre_hook(check(place), prepend=True)  # before FSDP's, which collects the weights
    split.register_forward_hook(check(len(blocks)))


def _alike(found: Passed, expected: Passed) -> bool:
    """Whether these are the same numbers, up to rounding. A grey image may give some that are not finite."""
    (outputs, gradients), (own, norms) = (
        [part.nan_to_num(0.0, 0.0, 0.0) for part in passed] for passed in (expected, found)
    )
    lengths = gradients[:, :1]
    near = (norms - gradients).abs() <= 1e-2 * lengths + 1e-5 * lengths.max()
    return torch.allclose(own, outputs, rtol=1e-2, atol=1e-3 * float(outputs.abs().max())) and bool(near.all())


def _add_up_gradients(module: nn.Module) -> None:
    """The parts of a gradient add up (core/shared_rows.py); FSDP's default is their mean."""
    module.set_gradient_divide_factor(1.0)  # type: ignore[operator]
    module.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]  # gloo has no scaled sum
    module.set_reduce_scatter_unused_params(True)  # type: ignore[operator]  # by layers that only some images reach


def _blocks(network: nn.Module, images: Tensor) -> Iterator[nn.Module]:
    """What is split by itself: a sequence of layers, and each entry of other lists and sequences, such as the blocks of
    a transformer. No single layer, because what follows one may change its outputs in place.

    Not those that are never called, because another module may read their weights, or that share a weight or a layer.
    """
    called: set[nn.Module] = set()
    handles = [module.register_forward_pre_hook(lambda it, _: called.add(it)) for module in network.modules()]
    network(images)
    for handle in handles:
        handle.remove()
    with_weights = {module for module in network.modules() if any(True for _ in module.parameters())}
    owners = collections.Counter[object]()
    for module in network.modules():
        owners.update([*module.parameters(recurse=False), *module.children()])
    pending = [(child, _is_list(network)) for child in network.children()]
    while pending:
        module, is_entry = pending.pop()
        parts = list(module.children())
        of_layers = all(not list(part.children()) for part in parts)
        inside = {layer for part in parts for layer in part.modules()} & with_weights
        alone = module in called and all(owners[each] == 1 for each in (*module.parameters(), *inside))
        if alone and inside and (of_layers if _is_list(module) else is_entry):
            yield module
        else:
            pending += [(part, _is_list(module)) for part in parts]


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.ModuleList, nn.Sequential))


def _refused(reason: str) -> UserError:
    return UserError(
        f"runtime.strategy = fsdp: this network can't be trained in parts ({reason}); allowed: runtime.strategy = ddp"
    )
