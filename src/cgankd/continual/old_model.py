"""The old model, after the task before: as the teacher, with adapted normalisation, and as the network's start."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # the base class of all batch normalisations of torch

from cgankd.core.errors import UserError


class AdaptedTeacher:
    """Teacher adaptation (arXiv 2308.09544): the old model with batch normalisation by statistics of the new data.

    A copy of ``network`` with frozen weights. Its batch normalisations are in train mode, so they use the mean and
    variance of each batch and update their running statistics; every other layer, such as dropout, is in eval mode.
    So the outputs for an image depend on the batch, and must not be cached. They do not depend on earlier batches, so
    a resumed training gives the same result.

    Raises UserError where there is no batch normalisation to adapt.
    """

    def __init__(self, network: nn.Module) -> None:
        check_adaptable(network, type(network).__name__)
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        for layer in normalisations(self.network):
            layer.training = True  # not .train(), because a batch normalisation of timm contains other layers

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Float images [B, C, H, W] in [0, 1], B >= 2 -> the old outputs [B, old]."""
        return self.network(images)


def normalisations(network: nn.Module) -> list[_BatchNorm]:
    """The network's batch normalisations."""
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]


def check_adaptable(network: nn.Module, name: str) -> None:
    """UserError where ``network`` has no batch normalisation."""
    if not normalisations(network):
        raise UserError(
            f"network {name} has no batch normalisation, which teacher adaptation needs; allowed with +ta: a network "
            "with torch.nn.BatchNorm layers"
        )


def grow(network: nn.Module, old: Mapping[str, Tensor]) -> None:
    """Load an old model's state dict into ``network``, which has more outputs.

    The rows of the last layer for new classes stay as they are. Raises UserError where shapes differ otherwise.
    """
    for name, tensor in network.state_dict().items():
        before = old[name]
        if before.shape == tensor.shape:
            tensor.copy_(before)
        elif before.ndim and before.shape[1:] == tensor.shape[1:] and len(before) < len(tensor):
            tensor[: len(before)] = before
        else:
            raise UserError(
                f"network {type(network).__name__}: with more outputs, {name} changes from {list(before.shape)} to "
                f"{list(tensor.shape)}; allowed: a network whose outputs are the rows of its last layer"
            )
