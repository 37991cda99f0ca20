"""Training steps a second of one small network on this device, for each precision and each order of memory."""

from __future__ import annotations

import contextlib
import time

import torch
from torch import nn

from cgankd.nets import zoo

NETWORK, BATCH, SIDE = "cnn16", 64, 32
ORDERS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def steps_per_second(device: str, seconds: float = 2.0) -> dict[str, float]:
    """Steps a second, by names such as ``bf16 channels_last``; all together take about ``seconds``."""
    kinds = [(precision, order) for precision in ("fp32", "bf16") for order in ORDERS]
    return {
        f"{precision} {order}": _speed(device, precision == "bf16", ORDERS[order], seconds / len(kinds))
        for precision, order in kinds
    }


def _speed(device: str, bf16: bool, order: torch.memory_format, seconds: float) -> float:
    rng = torch.Generator().manual_seed(0)
    network = zoo.create(NETWORK, 3, 10, (SIDE, SIDE)).to(device)
    network = network.to(memory_format=order)  # type: ignore[call-overload]  # torch's stubs don't have it
    images = torch.rand(BATCH, 3, SIDE, SIDE, generator=rng).to(device, memory_format=order)
    labels = torch.randint(0, 10, (BATCH,), generator=rng).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step() -> None:
        precision = torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else contextlib.nullcontext()
        with precision:
            outputs = network(images)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(outputs.float(), labels).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    step()  # the first step also prepares the kernels
    begin, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begin < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - begin)
