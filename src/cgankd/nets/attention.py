"""``NAME+vam``: a virtual attention module (VAM) in any network with maps: blocks of filters, weighed per image.

After KDExplainer (Xue et al., arXiv 2105.04181): filters are grouped into virtual blocks, a softmax over the blocks
weighs them. How many blocks, at which layers, and what computes their scores are ours: four blocks, at the last two
stages, by one linear layer that starts at zero, on the channels' means, normalised. So a new network says what it
says without the module, and may be filled with the weights of one without it.
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
from cgankd.nets.feature_layers import stages
from cgankd.nets.taps import example_images, feature_shapes, undisturbed

SUFFIX = "+vam"  # behind a network's name
BLOCKS, STAGES = 4, 2
HOME = "vam"  # the child of the network that holds the gates: what the names of their tensors begin with


def attention(scores: Tensor) -> Tensor:
    """What a gate's score layer gives, [B, K, 1, 1], as the share of each block: float32 [B, K], of sum 1."""
    return torch.softmax(scores.flatten(1).float(), dim=1)


class Gate(nn.Module):
    """x K a: a map x [B, C, H, W] to the same shape; of each image, each of K blocks of channels times its weight.

    Blocks are neighbouring channels, as even as C allows; a [B, K] is :func:`attention` of ``score``, a linear
    layer on the means of x over its pixels. These are brought to mean 0 and deviation 1 over an image's channels:
    as they come they grow with training, and the attention soon settles on one block for all images. K keeps the
    scale: where all blocks count alike, x stays as it is.
    """

    block: Tensor  # int64 [C]: which block a channel is in

    def __init__(self, channels: int, stage: str) -> None:
        super().__init__()
        self.stage = stage  # the layer whose map it weighs
        # A convolution, for the last nn.Linear that a network executes stands for its head (PENULTIMATE).
        self.score = nn.Conv2d(channels, BLOCKS, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]
        self.register_buffer("block", torch.arange(channels) * BLOCKS // channels, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        means = F.group_norm(x.mean((2, 3), keepdim=True), 1)  # [B, C, 1, 1]
        weights = BLOCKS * attention(self.score(means))
        return x * weights[:, self.block, None, None].to(x.dtype)

    def after(self, layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        """As a forward hook of the layer. A bound method: a deep copy of the network has hooks to its own gates."""
        return self(output)  # type: ignore[no-any-return]


class Gates(nn.ModuleList):
    """A network's gates, its child called :data:`HOME`. An nn.Sequential runs it, so as a layer it does nothing."""

    def forward(self, x: Any) -> Any:
        return x


def add_attention(network: nn.Module, channels: int, size: tuple[int, int], called: str = "") -> nn.Module:
    """The network itself, with a gate behind each of its last stages; no tensor of its own changes its name.

    For images of ``channels`` and ``size`` (height, width). ``called`` is its name, for the complaint: UserError
    where it has no maps of four channels or more that one layer makes once, or has a child of that name already.
    """
    called = called or type(network).__name__
    if hasattr(network, HOME):
        raise UserError(f"network {called!r} has a child named {HOME!r} already; allowed: one attention a network")
    shapes = feature_shapes(network, stages(network, channels, size), channels, size)
    runs = _runs(network, shapes, channels, size)
    gated = [name for name, shape in shapes.items() if shape[0] >= BLOCKS and runs[name] == 1][-STAGES:]
    if not gated:
        raise UserError(
            f"network {called!r} has no maps whose filters could be weighed, so {called}{SUFFIX} can't be made; "
            f"allowed: a network with maps of {BLOCKS} channels or more"
        )
    made = [Gate(shapes[name][0], name) for name in gated]
    for gate in made:
        network.get_submodule(gate.stage).register_forward_hook(gate.after)
    weight = next(network.parameters())
    network.add_module(HOME, Gates(made).to(weight.device, weight.dtype))
    return network


def _runs(network: nn.Module, names: Iterable[str], channels: int, size: tuple[int, int]) -> Counter[str]:
    """How often each layer runs for one image; a shared one could be gated only wherever it stands."""
    found: Counter[str] = Counter()

    def counted(name: str) -> RemovableHandle:
        return network.get_submodule(name).register_forward_hook(lambda *_: found.update([name]))

    handles = [counted(name) for name in names]
    with undisturbed(network):
        network(example_images(network, channels, size))
    for handle in handles:
        handle.remove()
    return found


def gates(network: nn.Module) -> dict[str, Gate]:
    """The gates of a network, from the image on, by the names of the layers that make their scores.

    >>> from cgankd.nets import zoo
    >>> {name: gate.stage for name, gate in gates(zoo.create("cnn16+vam", 1, 10, (16, 16))).items()}
    {'vam.0.score': 'layer2', 'vam.1.score': 'layer3'}
    """
    return {f"{name}.score": gate for name, gate in network.named_modules() if isinstance(gate, Gate)}
