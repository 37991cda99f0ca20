"""What a network says of images, how good that is, and how long it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.data.imageset import ImageSet
from cgankd.nets.attention import BLOCKS, attention, gates
from cgankd.nets.taps import Taps
from cgankd.task import Task

# float images [B, C, H, W] in [0, 1] -> outputs [B, number of outputs]; an nn.Module is one
Predictor = Callable[[Tensor], Tensor]


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, C, H, W] -> what every network eats: float32 in [0, 1], channels last, on the device."""
    return images.to(device).to(memory_format=torch.channels_last).float().div_(255.0)


def place(network: nn.Module, fabric: Fabric) -> nn.Module:
    """The network itself, on the device and with its weights laid out channels last."""
    network.to(fabric.device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


@torch.no_grad()
def outputs(network: Predictor, images: Tensor, fabric: Fabric, batch_size: int = 500) -> Tensor:
    """float32 [N, number of outputs] on the CPU, for uint8 images [N, C, H, W]; a module runs in eval mode."""
    training = isinstance(network, nn.Module) and network.training
    if isinstance(network, nn.Module):
        place(network, fabric).eval()
    with fabric.autocast():
        parts = [network(to_input(block, fabric.device)).float().cpu() for block in images.split(batch_size)]
    if isinstance(network, nn.Module):
        network.train(training)
    return torch.cat(parts)


def metric(network: Predictor, images: ImageSet, task: Task, fabric: Fabric) -> tuple[float, list[float | None]]:
    """The task's metric on ``images``, over all and per class or label bin (None where a bin is empty)."""
    scores = task.score(outputs(network, images.images, fabric), images.labels)
    means, counts = _per_bin(scores, images.labels, task)
    return float(scores.mean()), [float(mean) if n else None for mean, n in zip(means, counts, strict=True)]


def attention_per_bin(network: nn.Module, images: ImageSet, task: Task, fabric: Fabric) -> dict[str, Tensor]:
    """What a network with attention (NAME+vam) attends to, of each class or label bin.

    Returns ``mean`` float32 [bins, gates, K]: each block's share, averaged over the bin's images (NaN: there are
    none); ``images`` int64 [bins]: how many these are; ``decided`` float32 [gates]: 1 less the mean over all images
    of their attention's entropy, as a share of the largest, ln K.
    """
    place(network, fabric).eval()
    with Taps(network, gates(network)) as taps:

        def look(shown: Tensor) -> Tensor:
            return torch.stack([attention(scores) for scores in taps(shown)[1].values()], dim=1)

        seen = outputs(look, images.images, fabric).double()  # [N, gates, K]
    mean, counts = _per_bin(seen, images.labels, task)
    decided = 1.0 - torch.special.entr(seen).sum(2).mean(0) / math.log(BLOCKS)
    return {"mean": mean.float(), "images": counts, "decided": decided.float()}


def _per_bin(values: Tensor, labels: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Means of ``values`` [N, ..] over each of the task's bins, [bins, ..], and how many each has, [bins]."""
    names, place = task.bins(labels)
    sums = values.new_zeros(len(names), *values.shape[1:]).index_add_(0, place, values)
    counts = torch.bincount(place, minlength=len(names))
    return sums / counts.view(-1, *[1] * (values.ndim - 1)), counts


@torch.no_grad()
def latency_ms(network: nn.Module, shape: tuple[int, int, int], repeats: int = 30) -> float:
    """Milliseconds for one image [C, H, W] at float32 on the network's own device: the median of ``repeats``."""
    device = next(network.parameters()).device
    image = torch.zeros(1, *shape, device=device)
    training = network.training
    network.eval()
    times = []
    for _ in range(repeats + 5):
        start = time.perf_counter()
        network(image)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    network.train(training)
    return 1e3 * sorted(times[5:])[repeats // 2]


def parameters(network: nn.Module) -> int:
    """The number of trainable numbers in a network."""
    return sum(p.numel() for p in network.parameters())
