"""Networks as a run needs them: the random weights of a seed, inputs normalised by the training images."""

from __future__ import annotations

import importlib.metadata

import torch
from torch import nn

from cgankd.core import rng
from cgankd.core.plugins import code_key
from cgankd.data.imageset import ImageSet
from cgankd.nets import timm_bridge, zoo
from cgankd.nets.registry import VERSIONS


def fresh_network(name: str, images: ImageSet, outputs: int, seed: int) -> nn.Module:
    """A network for such images with the seed's random weights, normalisation fixed from these images."""
    with torch.random.fork_rng([]):
        torch.manual_seed(rng.key(seed, "weights"))
        network = zoo.create(name, images.channels, outputs, images.size)
    pixels = images.images.float().div_(255.0)
    zoo.fix_normalisation(network, pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3)))
    return network


def network_code(name: str) -> dict[str, str]:
    """What a network's key holds besides its name: a user's own code, the version of timm, or of the network."""
    if name.startswith(timm_bridge.PREFIX):
        return {"network": f"timm {importlib.metadata.version('timm')}"}
    if ":" in name:
        return {"network": code_key(name)}
    version = VERSIONS.get(name.partition("+")[0])
    return {"network": f"version {version}"} if version else {}
