"""How much memory synthesis and training take, and whether it grows with the number of generated images.

Each number of images runs in a process of its own, and prints ``memory_images N=... peak=... anonymous=... goal=...``.
peak: the largest resident memory of the process, its libraries and the pages of memory-mapped files included.
anonymous: the largest part of it that is not of a file, which the system can't take back without swapping. Nothing is
asserted. Linux only.

    python benchmarks/memory.py 20000 200000 1000000
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

DEFAULT = (20_000, 200_000)
GOAL = 1500  # MB
SIDE, CLASSES, STEPS = 32, 10, 300
STATUS = Path("/proc/self/status")


def main() -> None:
    """One process for each number of images on the command line."""
    for count in map(int, sys.argv[1:] or DEFAULT):
        subprocess.run([sys.executable, __file__, "--child", str(count)], check=True)


def child(count: int) -> None:
    """Generate ``count`` images, train a student on them with kd, and print the line."""
    watch = Watch()
    started = time.perf_counter()
    imported = watch.now()
    made, trained = generate_and_train(count, watch)
    seconds = time.perf_counter() - started
    print(
        f"memory_images N={count:,} peak={watch.peak()} MB anonymous={watch.anonymous} MB goal={GOAL} "
        f"(synthesis {made}, training {trained} anonymous; {imported} at the start; {seconds:.0f} s)",
        flush=True,
    )


def generate_and_train(count: int, watch: Watch) -> tuple[int, int]:
    """The anonymous memory in MB after the synthesis, and after the training."""
    import torch
    from torch import Tensor, nn

    from cgankd.api import Distiller

    draws = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (1024, 3, SIDE, SIDE), dtype=torch.uint8, generator=draws)

    def generator(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        shift = (indices // len(noise) + 17 * targets).to(torch.uint8)  # sums of bytes wrap
        return noise[(indices + 31 * targets) % len(noise)] + shift[:, None, None, None]

    def network(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, width, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(4 * width, CLASSES),
        )  # fmt: skip

    torch.manual_seed(0)
    labels = torch.arange(500) % CLASSES
    distiller = Distiller(noise[:500], labels, network(8))
    distiller.use_generator(generator)
    distiller.synthesize(count, subsampling={"kind": "none"}, filter=None, replace="soft")
    made = watch.anonymous
    distiller.distill(network(4), "kd", steps=STEPS, real_share=0.1)
    return made, watch.anonymous


class Watch:
    """Follows the anonymous memory of this process, in MB."""

    def __init__(self) -> None:
        self.anonymous = 0
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while True:
            self.now()
            time.sleep(0.02)

    def now(self) -> int:
        """The anonymous memory now."""
        value = entry("RssAnon")
        self.anonymous = max(self.anonymous, value)
        return value

    def peak(self) -> int:
        """The largest resident memory so far."""
        return entry("VmHWM")


def entry(name: str) -> int:
    """A line of /proc/self/status, in MB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 // 1_000_000


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]))
    else:
        main()
