"""Finds the layers whose outputs are a network's feature maps. Methods that compare maps pair them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cgankd.core.errors import UserError
from cgankd.nets.taps import example_images, feature_shapes, undisturbed


class _Call(NamedTuple):
    """One call of a layer: pixels of the input map, the output map, and how often the output was written in place."""

    area: int
    output: Tensor
    version: int


def map_layers(network: nn.Module, channels: int, size: tuple[int, int]) -> list[str]:
    """Names of the layers whose outputs are the network's feature maps [B, C, H, W], from the largest to the smallest.

    One name per resolution, for images of ``channels`` and ``size`` (height, width), for use with
    :class:`cgankd.nets.taps.Taps`. The networks of the zoo list them in the attribute ``stage_names``; a network of
    your own can do the same. The zoo's maps are

    - after activation: cnn*, resnet*, vgg*, lenet5* and alexnet* (before the pool), shufflenetv1, shufflenetv2;
    - before activation: wrn_* (sums), densenet* (joined channels), mobilenetv2* and efficientnet_* (whose blocks end
      without an activation).

    A timm network describes its layers in ``feature_info``. For any other network, or if the described layers don't
    exist, one pass in eval mode finds them and changes nothing in the network. For each resolution it takes the layer
    that ends last, from the first layer with weights on. A layer inside a block that halves the map later is taken
    only if there is no other layer. Ignored are maps that are larger than an earlier map (side branches, decoders),
    that have one pixel, or that are overwritten in place.

    A network without feature maps, such as most transformers, has none: []. Raises UserError if a layer of
    ``stage_names`` can't be tapped.

    >>> from cgankd.nets import zoo
    >>> map_layers(zoo.create("resnet8", 3, 10, (32, 32)), 3, (32, 32))
    ['layer1', 'layer2', 'layer3']
    """
    if "NCHW" not in str(getattr(network, "output_fmt", "NCHW")):
        return []  # timm marks channels-last outputs so; every method would read the channels as a width
    if (names := getattr(network, "stage_names", None)) is not None:
        shapes = feature_shapes(network, names, channels, size)
        return [name for name in names if len(shapes[name]) == 3]
    widths = _timm_widths(network)
    try:
        shapes = feature_shapes(network, widths, channels, size)
    except UserError:  # a few timm networks describe modules that they don't have
        widths = {}
    if not widths:
        return _trace(network, channels, size)
    # some networks don't mark channels-last outputs: the first dimension of their maps is not the described width
    return [name for name, width in widths.items() if len(shapes[name]) == 3 and shapes[name][0] == width]


def _timm_widths(network: nn.Module) -> dict[str, int]:
    """The layers that a timm network describes, with their channels; empty for any other network."""
    described: Any = getattr(network, "feature_info", None)
    if not isinstance(described, list) or not all(
        isinstance(entry, dict) and {"module", "num_chs"} <= set(entry) for entry in described
    ):
        return {}
    return {entry["module"]: entry["num_chs"] for entry in described}


def _trace(network: nn.Module, channels: int, size: tuple[int, int]) -> list[str]:
    calls: dict[str, _Call] = {}  # the last call of each layer, in the order in which they end

    def watch(name: str, layer: nn.Module) -> RemovableHandle:
        weighted = next(layer.parameters(), None) is not None

        def record(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls.pop(name, None)
            if isinstance(output, Tensor) and output.dim() == 4 and (calls or weighted):
                calls[name] = _Call(_area(args[0]) if args else 0, output, _version(output))

        return layer.register_forward_hook(record)

    handles = [watch(name, layer) for name, layer in network.named_modules() if name]
    try:
        with undisturbed(network):
            network(example_images(network, channels, size))
    finally:
        for handle in handles:
            handle.remove()

    by_area: dict[int, str] = {}  # in order of falling area
    inner = set(calls) - _outside_halving_blocks(calls)
    for name, call in calls.items():
        area = _area(call.output)
        if _version(call.output) != call.version or not 1 < area <= min(by_area, default=area):
            continue
        if name not in inner or by_area.get(area, name) in inner:
            by_area[area] = name
    return list(by_area.values())


def _outside_halving_blocks(calls: dict[str, _Call]) -> set[str]:
    """All layers but those inside a block that halves the map in one step, where their own map is not yet halved."""
    outside = set(calls)
    for block, call in calls.items():
        inside = {name: _area(calls[name].output) for name in calls if name.startswith(f"{block}.")}
        after = _area(call.output)
        if after < call.area and not any(after < area < call.area for area in inside.values()):
            outside -= {name for name, area in inside.items() if area > after}
    return outside


def _version(output: Tensor) -> int:
    """How often a map was written in place; 0 under inference_mode, where torch does not count."""
    return 0 if output.is_inference() else output._version


def _area(value: Any) -> int:
    """Pixels of a map [B, C, H, W]; 0 for anything else."""
    return value.shape[2] * value.shape[3] if isinstance(value, Tensor) and value.dim() == 4 else 0
