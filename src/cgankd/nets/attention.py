"""``NAME+vam``: a virtual attention module (VAM) for any network with feature maps. It weights blocks of channels.

After KDExplainer (Xue et al., arXiv 2105.04181): channels are grouped into virtual blocks, and a softmax over the
blocks gives their weights, for each image. These choices are ours: four blocks, at the last two feature maps, scores
from one linear layer on the channels' normalised means. This layer starts at zero, so a new network gives the same
outputs as without the module, and weights of a network without the module can be loaded into it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cgankd.core.errors import UserError
from cgankd.nets.feature_layers import map_layers
from cgankd.nets.taps import example_images, feature_shapes, undisturbed

SUFFIX = "+vam"  # after a network's name
BLOCKS, GATED_MAPS = 4, 2
HOME = "vam"  # the submodule that holds the gates; the names of their tensors begin with it


def attention(scores: Tensor) -> Tensor:
    """The output of a gate's score layer [B, K, 1, 1] -> the weight of each block, float32 [B, K], of sum 1."""
    return torch.softmax(scores.flatten(1).float(), dim=1)


class Gate(nn.Module):
    """x K a: multiplies each of K blocks of channels of a map x [B, C, H, W] by its weight for that image.

    A block is a group of neighbouring channels; blocks are as equal in size as C allows. a [B, K] is
    :func:`attention` of ``score``, a linear layer on the means of x over its pixels. The means are normalised to mean
    0 and standard deviation 1 over an image's channels. Without this they grow with training, and the attention soon
    selects one block for all images. The factor K keeps the scale: if all weights are equal, x does not change.
    """

    block: Tensor  # int64 [C]: the block of each channel

    def __init__(self, channels: int, stage: str) -> None:
        super().__init__()
        self.stage = stage  # the name of the layer whose output it multiplies
        # A convolution, because the last nn.Linear that a network executes is taken as its head (PENULTIMATE).
        self.score = nn.Conv2d(channels, BLOCKS, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]
        self.register_buffer("block", torch.arange(channels) * BLOCKS // channels, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        means = F.group_norm(x.mean((2, 3), keepdim=True), 1)  # [B, C, 1, 1]
        weights = BLOCKS * attention(self.score(means))
        return x * weights[:, self.block, None, None].to(x.dtype)

    def after(self, layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        """The forward hook of the layer. It is a bound method, so a deep copy of the network uses its own gates."""
        return self(output)  # type: ignore[no-any-return]


class Gates(nn.ModuleList):
    """A network's gates, its submodule :data:`HOME`. An nn.Sequential calls it, so forward is the identity."""

    def forward(self, x: Any) -> Any:
        return x


def add_attention(network: nn.Module, channels: int, size: tuple[int, int], called: str = "") -> nn.Module:
    """Add a gate after each of the network's last feature maps, and return it; its own tensors keep their names.

    channels, size: of the images (size: height, width). called: the network's name in error messages. Raises UserError
    if no layer runs exactly once and returns a map of four channels or more, or if a submodule ``vam`` exists already.
    """
    called = called or type(network).__name__
    if hasattr(network, HOME):
        raise UserError(
            f"network {called!r} has a submodule named {HOME!r} already; allowed: one attention module per network"
        )
    shapes = feature_shapes(network, map_layers(network, channels, size), channels, size)
    runs = _count_runs(network, shapes, channels, size)
    gated = [name for name, shape in shapes.items() if shape[0] >= BLOCKS and runs[name] == 1][-GATED_MAPS:]
    if not gated:
        raise UserError(
            f"network {called!r} has no feature maps that attention could weight, so {called}{SUFFIX} can't be made; "
            f"allowed: a network with feature maps of {BLOCKS} channels or more"
        )
    added = [Gate(shapes[name][0], name) for name in gated]
    for gate in added:
        network.get_submodule(gate.stage).register_forward_hook(gate.after)
    weight = next(network.parameters())
    network.add_module(HOME, Gates(added).to(weight.device, weight.dtype))
    return network


def _count_runs(network: nn.Module, names: Iterable[str], channels: int, size: tuple[int, int]) -> Counter[str]:
    """How often each layer runs in one pass; a layer that runs twice would be gated at both places."""
    runs: Counter[str] = Counter()

    def counted(name: str) -> RemovableHandle:
        return network.get_submodule(name).register_forward_hook(lambda *_: runs.update([name]))

    handles = [counted(name) for name in names]
    with undisturbed(network):
        network(example_images(network, channels, size))
    for handle in handles:
        handle.remove()
    return runs


def gates(network: nn.Module) -> dict[str, Gate]:
    """The gates of a network, from input to output, by the names of their score layers.

    >>> from cgankd.nets import zoo
    >>> {name: gate.stage for name, gate in gates(zoo.create("cnn16+vam", 1, 10, (16, 16))).items()}
    {'vam.0.score': 'layer2', 'vam.1.score': 'layer3'}
    """
    return {f"{name}.score": gate for name, gate in network.named_modules() if isinstance(gate, Gate)}
