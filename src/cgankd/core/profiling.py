"""``--profile``: where the time and the memory of each stage go, as a table, profile.json and traces.

The loops name their parts with :func:`part`. First a clock measures the parts for about half a second; then
torch.profiler records as much for a trace, which Perfetto (ui.perfetto.dev) and chrome://tracing show.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from cgankd.core.files import file_name, write_json
from cgankd.core.run_text import duration
from cgankd.core.watching import Output, Watched

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PREFIX = "cgankd: "
FOLDER = "profile"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux
QUIET = "6"  # so that torch's profiler writes nothing of its own to stderr
NO_PART = contextlib.nullcontext()
# The parts of a training step without which it would be none. None of them lies in another one.
FLOOR = ("forward", "student", "loss", "backward", "optimizer")
PEAK = "5"  # what to write to RESET, so that the peak begins anew


class Clock:
    """The seconds of each part, and of all, since it was made. On CUDA, each part waits for what it began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        _settle()
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        _settle()
        began = time.perf_counter()
        yield
        _settle()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def shares(self) -> dict[str, float]:
        """The share of each part in the time until now."""
        _settle()
        total = time.perf_counter() - self._began
        return {name: seconds / total for name, seconds in self.seconds.items()}


_clock: Clock | None = None  # while parts are measured


def part(name: str) -> AbstractContextManager[object]:
    """A block of a loop, such as ``teacher``; ``--profile`` shows its share of the time.

    Without ``--profile`` it does nothing, because record_function takes ten microseconds then too.
    """
    if _clock is not None:
        return _clock.part(name)
    return record_function(PREFIX + name) if torch.autograd.profiler._is_profiler_enabled else NO_PART


def _settle() -> None:
    """Wait for the GPU, if one is in use: else a part would take no longer than to say what is to be computed."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclasses.dataclass
class Measured:
    """One stage. parts: share of the measured time by part; empty where the stage was too short to measure.

    Where a part runs inside another one, both count it. floor: the share of the parts in FLOOR together; None where
    there are none, as in a loop that trains nothing. peak_memory: bytes of the whole process, its libraries too; on
    Linux without what it takes to write a trace, which a run without ``--profile`` does not do.
    """

    stage: str
    seconds: float = 0.0
    images_per_second: float | None = None
    peak_memory: int = 0
    peak_gpu_memory: int | None = None
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    floor: float | None = None
    trace: str | None = None


class Profile(Output):
    """Measures each stage, and prints the table when the command ends.

    Each loop is measured from its first tick to the second one; of each stage, one loop is traced.
    """

    every = 0.5

    def __init__(self, console: Console) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)
        self.console, self.stages = console, list[Measured]()
        self._now: Measured | None = None
        self._folder: Path | None = None
        self._profiler: profile | None = None
        self._shares: dict[str, float] | None = None  # of the loop that runs
        self._longest = 0.0  # seconds of the loop whose shares the stage has

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        self._folder = watched.folder or self._folder
        match event:
            case "stage_started":
                self._now, self._shares, self._longest = Measured(fields["stage"]), None, 0.0
                _forget_peaks()
            case "loop_ended":
                self._end_clock()
                self._end_trace()
                self._end_loop(fields["seconds"])
            case "stage_ended" if self._now is not None:
                self._now.seconds = fields["seconds"]
                self._note_peaks(self._now)
                self.stages.append(self._now)
                self._now = None
                self._keep()
            case "done":
                self._print()

    def tick(self, watched: Watched) -> None:
        if self._now is None or self._folder is None:
            return
        self._now.images_per_second = watched.now()["images_per_second"] or self._now.images_per_second
        if self._profiler is not None:
            self._end_trace()
        elif self._shares is None and _clock is None:
            _measure(Clock())
        elif _clock is not None:
            self._end_clock()
        elif self._now.trace is None:
            self._now.trace = f"{FOLDER}/{len(self.stages) + 1:02}-{file_name(self._now.stage)}.json.gz"
            gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profiler = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profiler.start()

    def close(self) -> None:
        _measure(None)
        if self._profiler is not None:
            self._profiler.stop()

    def _end_clock(self) -> None:
        if _clock is not None:
            self._shares = _clock.shares()
            _measure(None)

    def _end_loop(self, seconds: float) -> None:
        """Of several loops of a stage, the longest says how its time is shared."""
        if self._now is not None and self._shares and seconds > self._longest:
            floor = [share for name, share in self._shares.items() if name in FLOOR]
            self._now.parts, self._now.floor, self._longest = self._shares, sum(floor) if floor else None, seconds
        self._shares = None

    def _end_trace(self) -> None:
        if self._profiler is None or self._now is None or self._now.trace is None or self._folder is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self._note_peaks(self._now)
        path = self._folder / self._now.trace
        path.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(path))
        del profiler
        _free_memory()
        _forget_peaks()

    @staticmethod
    def _note_peaks(stage: Measured) -> None:
        stage.peak_memory = max(stage.peak_memory, peak_memory())
        if torch.cuda.is_available():
            stage.peak_gpu_memory = max(stage.peak_gpu_memory or 0, torch.cuda.max_memory_allocated())

    def _keep(self) -> None:
        if self._folder is not None:
            write_json(self._folder / f"{FOLDER}.json", [dataclasses.asdict(stage) for stage in self.stages])

    def _print(self) -> None:
        if not self.stages:
            self.console.print("profile: no stage was computed, because all of them were done before")
            return
        self.console.print(table(self.stages))
        self.console.print(f"{FOLDER}.json and traces in {self._folder}", soft_wrap=True)


def _measure(clock: Clock | None) -> None:
    """From now on, parts are measured by ``clock``; None: they are not measured."""
    global _clock
    _clock = clock


def _free_memory() -> None:
    """Give freed memory back to the system: the objects of a trace take hundreds of MB, which glibc would keep."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # only glibc has the function
            ctypes.CDLL(None).malloc_trim(0)


def table(stages: list[Measured]) -> Table:
    """A line for each stage."""
    from rich.table import Table

    shown = Table(title="profile", box=None, title_justify="left")
    shown.add_column("stage", overflow="fold")
    for name in ("time", "images/s", "memory, MB", "floor"):
        shown.add_column(name, justify="right")
    shown.add_column("share of the time", overflow="fold")
    for stage in stages:
        speed = "" if stage.images_per_second is None else f"{stage.images_per_second:,.0f}"
        largest_first = sorted(stage.parts.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {share:.0%}" for name, share in largest_first if share >= 0.005)
        memory, floor = f"{stage.peak_memory / 1e6:,.0f}", "" if stage.floor is None else f"{stage.floor:.0%}"
        shown.add_row(stage.stage, duration(stage.seconds), speed, memory, floor, shares)
    return shown


def peak_memory() -> int:
    """The largest resident memory in bytes since :func:`_forget_peaks`; on other systems than Linux since the start.

    0 where it is not known.
    """
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _forget_peaks() -> None:
    with contextlib.suppress(OSError):
        RESET.write_text(PEAK)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
