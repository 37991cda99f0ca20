"""Several processes hold one network in parts while it is trained (FSDP), because a large one does not fit into each.

Each process keeps its part of every weight, gradient and momentum. The whole weights of a block are collected before
the block computes, and dropped afterwards. Everything else is as with whole networks (core/shared_rows.py), so the
weights that are learnt are the same.
"""

from __future__ import annotations

import collections
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.core import ranks
from cgankd.core.errors import UserError, said
from cgankd.core.runtime import Fabric, weights_mesh
from cgankd.core.shared_rows import batch_statistics
from cgankd.core.shared_weights import whole
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
        expected, again = split(images), split(images)  # unequal where the network draws random numbers
        blocks = list(dict.fromkeys(_blocks(split, images)))  # two lists may have the same module
    images = images.to(fabric.device)
    try:
        with ranks.exchanges_of_torch():
            for block in [*blocks, split]:
                # the default keeps the network's own weights whole after a pass, even one that no backward pass follows
                _add_up_gradients(fully_shard(block, mesh=mesh["data_parallel"], reshard_after_forward=True))
            _check_calls(split, blocks)
            with undisturbed(split):
                found = split(images).to("cpu")
            _try_to_train(split, images)
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(said(error)) from error
    if _alike(again, expected) and not _alike(found, expected):
        raise _refused("its outputs differ from those of the whole network")
    return split


def put_together(split: nn.Module, network: nn.Module) -> None:
    """Give ``network`` the weights of its copy in parts. All processes must call this."""
    if split is network:
        return
    own = network.state_dict()
    for name, value in split.state_dict().items():
        own[name].copy_(whole(value))


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


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Whether these are the same outputs, up to rounding. A grey image may give some that are not finite."""
    largest = float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * largest, equal_nan=True)


def _add_up_gradients(module: nn.Module) -> None:
    """The parts of a gradient add up (core/shared_rows.py); FSDP's default is their mean."""
    module.set_gradient_divide_factor(1.0)  # type: ignore[operator]
    module.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]  # gloo has no scaled sum
    module.set_reduce_scatter_unused_params(True)  # type: ignore[operator]  # by layers that only some images reach


def _blocks(network: nn.Module, images: Tensor) -> Iterator[nn.Module]:
    """What is split by itself: the entries of lists and sequences of modules, such as the blocks of a transformer.

    Not those that are never called, because another module may read their weights, or that share a weight.
    """
    called: set[nn.Module] = set()
    handles = [module.register_forward_pre_hook(lambda it, _: called.add(it)) for module in network.modules()]
    network(images)
    for handle in handles:
        handle.remove()
    owners = collections.Counter(weight for module in network.modules() for weight in module.parameters(recurse=False))
    pending = list(network.children())
    while pending:
        module = pending.pop()
        entries = isinstance(module, (nn.ModuleList, nn.Sequential))
        for child in module.children():
            holds = isinstance(child, (nn.ModuleList, nn.Sequential))
            weights = list(child.parameters())
            if entries and not holds and weights and child in called and all(owners[weight] == 1 for weight in weights):
                yield child
            else:
                pending.append(child)


def _refused(reason: str) -> UserError:
    return UserError(
        f"runtime.strategy = fsdp: this network can't be trained in parts ({reason}); allowed: runtime.strategy = ddp"
    )
