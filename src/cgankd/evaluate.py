"""What a network says of images, how good that is, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.data.imageset import ImageSet
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
    names, place = task.bins(images.labels)
    sums = torch.zeros(len(names), dtype=torch.float64).index_add_(0, place, scores)
    counts = torch.bincount(place, minlength=len(names))
    per_bin = [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
    return float(scores.mean()), per_bin


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
