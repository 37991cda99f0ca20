"""How long a person waits before something happens, and the memory of a small run; each command is a new process.

Prints ``NAME ratio=R goal=1 (...)``, where R is the goal in seconds, or in MB, over what was measured: 1 and above is
reached. Of several starts the fastest counts, because other programs only make one slower. processor: the time of all
its threads, which depends less on other programs. Linux and macOS.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

STARTS = 3
HELP, AGAIN, FIRST_STEP = 0.5, 2.0, 4.0  # seconds
MEMORY, IMAGES = 800, 300  # MB for labelled images
COMMAND = "from cgankd.cli.main import main; main()"
UNTIL_A_STEP = (  # of the first optimiser, in the training of the teacher
    "import os; from torch.optim.optimizer import register_optimizer_step_post_hook as after_each\n"
    f"after_each(lambda *_: os._exit(0)); {COMMAND}"
)
FEW_STEPS = [
    f"data.train_size={IMAGES}", "teacher.fit.steps=30", "student.fit.steps=20", "student.transfer_steps=40",
    "generator.steps=60", "generator.ema_start=10", "ratio.steps=40",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Took:
    """What a process took. processor: in seconds, too. peak: the largest resident memory, in MB."""

    seconds: float
    processor: float
    peak: float


def main() -> None:
    """Print the four lines."""
    with tempfile.TemporaryDirectory() as folder:
        small = ["run", "digits", *FEW_STEPS, "--quiet", "--out", f"{folder}/run"]
        fresh = (f"{folder}/{number}" for number in range(STARTS))
        in_time("start_help", HELP, lambda: process(COMMAND, "--help"))
        first = process(COMMAND, *small)
        in_time("start_finished_run", AGAIN, lambda: process(COMMAND, *small))
        in_time("start_first_step", FIRST_STEP, lambda: process(UNTIL_A_STEP, "run", "digits", "--out", next(fresh)))
    print(f"memory_small_run ratio={MEMORY / first.peak:.2f} goal=1 ({IMAGES} images, {first.peak:.0f} MB)", flush=True)


def in_time(name: str, goal: float, start: Callable[[], Took]) -> None:
    """Print the line of a command that is to take at most ``goal`` seconds."""
    started = [start() for _ in range(STARTS)]
    seconds, processor = min(took.seconds for took in started), min(took.processor for took in started)
    print(f"{name} ratio={goal / seconds:.2f} goal=1 ({seconds:.2f} s, processor {processor:.2f} s)", flush=True)


def process(code: str, *words: str) -> Took:
    """Run ``code`` as a command with these words, until it ends."""
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL) as started:
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise SystemExit(f"cgankd {' '.join(words)}: exit code {started.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return Took(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


if __name__ == "__main__":
    main()
