"""The cost of a network: parameters and latency."""

from __future__ import annotations

import time

import torch
from torch import nn


@torch.no_grad()
def latency_ms(network: nn.Module, shape: tuple[int, int, int], repeats: int = 30) -> float:
    """Milliseconds for one float32 image of ``shape`` (C, H, W), on the network's device: the median of ``repeats``."""
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
    """The number of parameters of a network."""
    return sum(p.numel() for p in network.parameters())
