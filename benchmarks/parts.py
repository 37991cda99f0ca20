"""How much memory a process takes that trains a large network with another one, whole (ddp) and in parts (fsdp).

Prints ``memory_parts strategy=... weights=... held=... peak=...`` for each strategy. held: weights, gradients and
momentum between two steps on the device of one process; peak: the largest anonymous memory of the process above that
before the training, on a GPU of the device. Nothing is asserted. Linux only.

    python benchmarks/parts.py 100
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from memory import Watch

PROCESSES = 2


def main() -> None:
    """Both strategies, one after the other, with a network of as many million weights as the command line says."""
    millions = sys.argv[1] if sys.argv[1:] else "100"
    for strategy in ("ddp", "fsdp"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # glibc would keep blocks that FSDP frees and takes again, and count them as used
        given = {
            **os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip
        copies = [
            subprocess.Popen(
                [sys.executable, __file__, "--child", strategy, millions], env={**given, "LOCAL_RANK": str(number)}
            )
            for number in range(PROCESSES)
        ]
        for copy in copies:
            if copy.wait():
                sys.exit(1)


def child(strategy: str, millions: int) -> None:
    """Train the network for a few steps, and print the line."""
    import torch
    from torch import nn
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from cgankd.config.settings import FitSettings
    from cgankd.core import ranks
    from cgankd.core.runtime import make_fabric
    from cgankd.core.shared_weights import own_part
    from cgankd.core.store import Work
    from cgankd.data.imageset import ImageSet, TrainingImages
    from cgankd.distill import SUPERVISED, MethodStack
    from cgankd.tasks import Classification
    from cgankd.training import loop

    width, blocks = 1024, max(1, millions - 1)  # of a million weights each
    fabric = make_fabric(precision="fp32", threads=1, devices=PROCESSES, strategy=strategy)
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(blocks)]
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, width), *layers, nn.Linear(width, 10))
    weights = sum(weight.numel() for weight in network.parameters())
    images = ImageSet(torch.zeros(32, 3, 16, 16, dtype=torch.uint8), torch.arange(32) % 10)
    task = Classification(tuple("abcdefghij"))
    held = []

    def measure(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
        momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
        held.append(sum(own_part(it).nbytes for it in [*parameters, *(p.grad for p in parameters), *momenta]))

    register_optimizer_step_post_hook(measure)
    watch = Watch()
    before = watch.now()
    fit = FitSettings(steps=4, batch_size=8, learning_rate=1e-3)

    def train() -> None:
        objective = MethodStack(SUPERVISED).create(task)
        loop.fit(Work(fabric), network, objective, TrainingImages(images), fit, seed=0)

    ranks.together(train, train)
    gpu = fabric.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() // 1_000_000 if gpu else watch.anonymous - before
    if ranks.is_first():
        print(
            f"memory_parts strategy={strategy} weights={weights:,} ({weights * 4 // 1_000_000} MB) "
            f"held={max(held) // 1_000_000} MB peak={peak} MB",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]))
    else:
        main()
