"""How long a start with real images takes, and how much memory: the first one, which decodes them, and the second.

Writes COUNT PNG files of SIDE x SIDE pixels in two classes, then reads them in two processes, one after the other. Each
computes what every run computes from the pixels, draws 20 batches of 16 views, and prints ``real_images ...``.
anonymous: as in memory.py. Nothing is asserted. Linux only.

    python benchmarks/real_images.py 100000 32
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import Watch


def main() -> None:
    """Write the images, and start twice."""
    count, side = (int(word) for word in sys.argv[1:3])
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        write(Path(folder) / "images", count, side)
        environment = {**os.environ, "CGANKD_DATA": f"{folder}/data"}
        for start in ("first", "second"):
            words = [sys.executable, __file__, "--child", f"{folder}/images", start, *sys.argv[3:]]
            subprocess.run(words, check=True, env=environment)


def write(folder: Path, count: int, side: int) -> None:
    """Smooth images with a little noise, which compress about as photos do."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    for number in range(count):
        home = folder / "ab"[number % 2]
        if number < 2:
            home.mkdir(parents=True)
        small = Image.fromarray(draws.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize((side, side))).astype(np.int16) + draws.integers(-4, 5, (side, side, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(home / f"{number}.png", compress_level=1)


def child(folder: str, which: str, most_in_memory: str = "") -> None:
    """Read the images as a run does, and print the line. most_in_memory: bytes, in place of the program's own."""
    import torch

    from cgankd.config.settings import AugmentSettings, DataSettings
    from cgankd.data import sources
    from cgankd.data.batches import Batches
    from cgankd.data.imageset import TrainingImages

    if most_in_memory:
        from cgankd.data import decoded

        decoded.MOST_IN_MEMORY = int(most_in_memory)
    watch = Watch()
    imported, started, worked = watch.now(), time.perf_counter(), time.process_time()
    splits = sources.load(DataSettings(source=folder))
    loaded, worked = time.perf_counter() - started, time.process_time() - worked
    for part in (splits.train, splits.val, splits.test):
        assert part.content_key
    batches = Batches(
        TrainingImages(splits.train), splits.task, 16, AugmentSettings(), seed=0, device=torch.device("cpu")
    )
    _ = splits.train.pixel_statistics
    hashed = time.perf_counter() - started
    for step in range(20):
        batches.at(step)
    ended = time.perf_counter() - started
    count = sum(map(len, (splits.train, splits.val, splits.test)))
    print(
        f"real_images N={count:,} {which} start: {loaded:.1f} s to load ({worked:.1f} s of processors), "
        f"{hashed - loaded:.1f} s for hashes and statistics, {ended - hashed:.2f} s for 20 batches; "
        f"peak={watch.peak()} MB anonymous={watch.anonymous} MB ({imported} at the start)",
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
