"""Which layers of a network are its stages: what methods that compare maps pair between student and teacher."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cgankd.core.errors import UserError
from cgankd.nets.taps import example_images, feature_shapes, undisturbed


class _Call(NamedTuple):
    """What a hook saw: pixels of the map that went in, the map that came out, how often it was written by then."""

    area: int
    output: Tensor
    version: int


def stages(network: nn.Module, channels: int, size: tuple[int, int]) -> list[str]:
    """Names of the layers whose outputs are the network's maps [B, C, H, W], from the largest map to the smallest.

    One name per resolution, as :class:`cgankd.nets.taps.Taps` takes them, for images of ``channels`` and ``size``
    (height, width). The zoo's networks declare theirs as ``stage_names``, and a network of your own may:

    - after activation: cnn*, resnet*, vgg* (before the pool), shufflenetv1, shufflenetv2;
    - before activation: wrn_* (sums), densenet* (joined channels), mobilenetv2* and efficientnet_* (whose blocks
      end without one).

    A network of timm's describes its own in ``feature_info``. For any other network, and for one that describes
    what it doesn't have, they are found by one pass in eval mode, which leaves no trace: of each resolution the
    layer that ends last, counting from the first layer with weights. A layer inside a block that goes on to halve
    the map is taken only where there is no other. Not counted are maps that are larger than an earlier one (side
    branches, decoders), have one pixel only, or are overwritten in place.

    A network without such maps, as most transformers are, has none: []. Raises UserError where a layer of
    ``stage_names`` can't be tapped.

    >>> from cgankd.nets import zoo
    >>> stages(zoo.create("resnet8", 3, 10, (32, 32)), 3, (32, 32))
    ['layer1', 'layer2', 'layer3']
    """
    if "NCHW" not in str(getattr(network, "output_fmt", "NCHW")):
        return []  # timm's word for channels that come last, where every method would take them for a width
    if (names := getattr(network, "stage_names", None)) is not None:
        shapes = feature_shapes(network, names, channels, size)
        return [name for name in names if len(shapes[name]) == 3]
    widths = _timms(network)
    try:
        shapes = feature_shapes(network, widths, channels, size)
    except UserError:  # a few of timm's describe modules that they don't have
        widths = {}
    if not widths:
        return _traced(network, channels, size)
    # some say nothing of channels that come last: their maps have another first number than their width
    return [name for name, width in widths.items() if len(shapes[name]) == 3 and shapes[name][0] == width]


def _timms(network: nn.Module) -> dict[str, int]:
    """The layers that a network of timm's describes, and their channels; of any other network none."""
    described: Any = getattr(network, "feature_info", None)
    if not isinstance(described, list) or not all(
        isinstance(entry, dict) and {"module", "num_chs"} <= set(entry) for entry in described
    ):
        return {}
    return {entry["module"]: entry["num_chs"] for entry in described}


def _traced(network: nn.Module, channels: int, size: tuple[int, int]) -> list[str]:
    calls: dict[str, _Call] = {}  # the last of each layer, in the order in which they end

    def watch(name: str, layer: nn.Module) -> RemovableHandle:
        weighted = next(layer.parameters(), None) is not None

        def note(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls.pop(name, None)
            if isinstance(output, Tensor) and output.dim() == 4 and (calls or weighted):
                calls[name] = _Call(_area(args[0]) if args else 0, output, _version(output))

        return layer.register_forward_hook(note)

    handles = [watch(name, layer) for name, layer in network.named_modules() if name]
    try:
        with undisturbed(network):
            network(example_images(network, channels, size))
    finally:
        for handle in handles:
            handle.remove()

    found: dict[int, str] = {}  # by area, which falls
    inner = set(calls) - _outside_halving_blocks(calls)
    for name, call in calls.items():
        area = _area(call.output)
        if _version(call.output) != call.version or not 1 < area <= min(found, default=area):
            continue
        if name not in inner or found.get(area, name) in inner:
            found[area] = name
    return list(found.values())


def _outside_halving_blocks(calls: dict[str, _Call]) -> set[str]:
    """The layers that don't lie, with a map of the old size, in a layer that makes the map smaller in one step."""
    outside = set(calls)
    for block, call in calls.items():
        inside = {name: _area(calls[name].output) for name in calls if name.startswith(f"{block}.")}
        after = _area(call.output)
        if after < call.area and not any(after < area < call.area for area in inside.values()):
            outside -= {name for name, area in inside.items() if area > after}
    return outside


def _version(output: Tensor) -> int:
    """How often a map was written in place; always 0 under inference_mode, which doesn't count."""
    return 0 if output.is_inference() else output._version


def _area(value: Any) -> int:
    """Pixels of a map [B, C, H, W]; 0 for anything else."""
    return value.shape[2] * value.shape[3] if isinstance(value, Tensor) and value.dim() == 4 else 0
