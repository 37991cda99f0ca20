"""Tensors that lie in parts in several processes (torch's DTensor), as files and checks need them.

With whole tensors, every function here returns what it is given.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cgankd.core import ranks


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, without gradient. Where it lies in parts, all processes must call this."""
    value: Tensor = tensor.full_tensor() if is_divided(tensor) else tensor  # type: ignore[attr-defined]
    return value.detach()


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors in the first process. Where some lie in parts, all processes must call this."""
    found = {}
    for name, tensor in tensors.items():
        found[name] = whole(tensor)
        if is_divided(tensor):  # one after the other, because a device may not hold all of them
            found[name] = found[name].cpu() if ranks.is_first() else torch.empty(0)
    return found


def own_part(tensor: Tensor) -> Tensor:
    """The part of the tensor that lies in this process, without gradient."""
    value: Tensor = tensor.to_local() if is_divided(tensor) else tensor  # type: ignore[attr-defined]
    return value.detach()


def divided_as(like: Tensor, tensor: Tensor) -> Tensor:
    """The whole ``tensor``, which every process has, in the same parts as ``like``."""
    if not is_divided(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


def is_divided(tensor: Tensor) -> bool:
    """Whether the tensor lies in parts in several processes. By an attribute, because importing DTensor takes long."""
    return hasattr(tensor, "full_tensor")
