"""The cost of a network: parameters and latency."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

WARM_UP, REPEATS = 5, 30  # calls that don't count, and calls that do


def fastest_ms(call: Callable[[], object]) -> float:
    """Milliseconds of the fastest of REPEATS calls, after a few that don't count.

    Other programs can only add to a time, so under load the fastest call is steadier than the median.
    """
    times = []
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times[WARM_UP:])


@torch.no_grad()
def latency_ms(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Milliseconds for one image [C, H, W] at float32 on the network's own device, as :func:`fastest_ms`."""
    device = next(network.parameters()).device
    image = torch.zeros(1, *shape, device=device)

    def call() -> None:
        network(image)
        if device.type == "cuda":
            torch.cuda.synchronize()

    training = network.training
    network.eval()
    milliseconds = fastest_ms(call)
    network.train(training)
    return milliseconds


def parameters(network: nn.Module) -> int:
    """The number of parameters of a network."""
    return sum(p.numel() for p in network.parameters())
