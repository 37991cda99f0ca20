"""The old model: as the teacher of a task, its normalisation adapted, and as what the new network grows from."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # what all of torch's batch normalisations are

from cgankd.core.errors import UserError


class AdaptedTeacher:
    """Teacher adaptation (arXiv 2308.09544): the old model with batch normalisation by the new data's statistics.

    A copy of ``network``, which stays as it is. The copy's weights are frozen; its batch normalisations are in
    train mode, so they normalise by each batch's own mean and variance and their running statistics follow; every
    other layer (dropout, say) is in eval mode. What it says of an image therefore depends on the batch: nothing of
    it may be cached. No answer depends on an earlier one, so a resumed training goes on exactly.

    Raises UserError where there is no batch normalisation to adapt.
    """

    def __init__(self, network: nn.Module) -> None:
        check_adaptable(network, type(network).__name__)
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        for layer in normalisations(self.network):
            layer.training = True  # not .train(): a layer of timm's holds others

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Float images [B, C, H, W] in [0, 1], B two or more -> the old outputs [B, old]."""
        return self.network(images)


def normalisations(network: nn.Module) -> list[_BatchNorm]:
    """The network's batch normalisations."""
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]


def check_adaptable(network: nn.Module, name: str) -> None:
    """UserError where ``network`` has no batch normalisation."""
    if not normalisations(network):
        raise UserError(
            f"network {name} has no batch normalisation, whose statistics teacher adaptation would change; allowed "
            "with +ta: a network with torch.nn.BatchNorm layers"
        )


def grow(network: nn.Module, old: Mapping[str, Tensor]) -> None:
    """Fill ``network`` with an old model's state dict ``old``; rows that the old one has not stay as they are.

    Those are the outputs of new classes, the last layer's last rows. Raises UserError where another shape differs.
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
