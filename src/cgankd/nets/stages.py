"""Where a network's maps get smaller: the layers that feature distillation pairs between student and teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cgankd.nets.taps import example_images, undisturbed


def stages(network: nn.Module, channels: int, size: tuple[int, int]) -> list[str]:
    """The last layer to finish at each resolution of the maps, from the largest map to the smallest.

    Found by one pass over images of ``channels`` and ``size`` (height, width), so that it holds for any network: of
    nested layers that end with the same map it is the outermost (a ResNet's ``layer1``, not its last ReLU). Maps of
    a single pixel are no stage, nor are resolutions larger than one that came before (a decoder's).

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1))
    >>> stages(network, 3, (16, 16))
    ['1', '3']
    """
    last: dict[int, str] = {}  # number of pixels -> name
    names = {module: name for name, module in reversed(list(network.named_modules())) if name}

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            pixels = output.shape[2] * output.shape[3]
            if pixels in last or all(pixels < seen for seen in last):
                last[pixels] = names[module]

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with undisturbed(network):
            network(example_images(network, channels, size))
    finally:
        for handle in handles:
            handle.remove()
    return list(last.values())
