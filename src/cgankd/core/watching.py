"""One observer for all that loops and stages report; views, JSON lines, the status file and trackers read it.

:class:`Watched` keeps what is known of the run (:meth:`Watched.now`) and passes events to its outputs. The keys of
events are documented in docs/running.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgankd.core import run_text
from cgankd.core.progress import SILENT, Bar, Progress
from cgankd.core.run_plan import Expected, RunPlan, Station

if TYPE_CHECKING:
    from torch import Tensor

KNOWN_AFTER = 0.5  # seconds that a loop must have run before its speed is known
# Its first steps are slower than the others, so other stages are estimated from it only after SETTLED seconds and this
# share of its steps, or after LONG_ENOUGH seconds.
SETTLED, SETTLED_SHARE, LONG_ENOUGH = 10.0, 0.03, 60.0
TOO_LONG = 2.0  # times the budget of its recipe, from which a run says how long it will take


class Output:
    """Something that shows or keeps what a run reports. every: seconds between two calls of :meth:`tick`."""

    every: float = float("inf")

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        """Something happened."""

    def tick(self, watched: Watched) -> None:
        """Time has passed, and a loop has moved."""

    def picture(self, name: str, image: Tensor) -> None:
        """A picture, uint8 [C, H, W]."""

    def close(self) -> None:
        """Nothing more will come."""


class _Loop(Bar):
    """The loop that is at work. passing: it is a part of a longer task."""

    def __init__(self, watched: Watched, title: str, total: float, passing: bool) -> None:
        self._watched, self.title, self.total, self.passing = watched, title, total, passing
        self.done, self.note, self.values = 0.0, "", dict[str, float]()
        self.started = self._first_time = self._last_time = time.monotonic()
        self._first: float | None = None  # done at the first report, because a resumed loop starts further on

    def to(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._first_time = done, now
        self.done, self.note, self._last_time = done, note or self.note, now
        self._watched.moved(now)

    def log(self, entry: Mapping[str, float]) -> None:
        self.values = {name: value for name, value in entry.items() if name != "step"}
        self._watched.emit("values", loop=self.title, step=int(entry["step"]), values=self.values)

    @property
    def counted(self) -> str:
        """What ``done`` and ``total`` count."""
        return "blocks" if self.passing else "images" if self.images == 1 else self.unit

    @property
    def speed(self) -> float | None:
        """Steps per second; None where it is not known yet."""
        steps = self.done - (self._first or 0.0)
        return steps / self.seconds if self._first is not None and steps > 0 and self.seconds > KNOWN_AFTER else None

    @property
    def seconds(self) -> float:
        """Since the first report."""
        return time.monotonic() - self._first_time

    @property
    def left(self) -> float | None:
        """Seconds until the loop ends; None where this is not known yet."""
        speed = self.speed
        return (self.total - self.done) / speed if speed else None

    @property
    def before(self) -> float:
        """Seconds that an earlier process worked on a resumed loop, by the speed of this one; 0 while not known."""
        first, steps = self._first or 0.0, self.done - (self._first or 0.0)
        seconds = first * (self._last_time - self._first_time) / steps if steps > 0 else 0.0
        return max(0.0, seconds - (self._first_time - self.started))  # the first steps may be of this process

    @property
    def settled(self) -> bool:
        """Whether its speed says something about other stages."""
        first = self._first or 0.0
        share = (self.done - first) / max(1.0, self.total - first)
        return self.seconds >= SETTLED and (share >= SETTLED_SHARE or self.seconds >= LONG_ENOUGH)


class Watched(Progress):
    """Passes what is reported to its outputs. Use it as a context that covers the whole command."""

    def __init__(self, outputs: Sequence[Output] = ()) -> None:
        self.outputs = list(outputs)
        self.folder: Path | None = None
        self.run_plan = RunPlan()
        self.first_notes: list[str] = []  # said before any stage, so a run says them whenever it is started
        self.expected: Expected | None = None  # set by a command that knows what the recipe was made for
        self.station: Station | None = None
        self.started, self._began = time.time(), time.monotonic()
        self.at_error: dict[str, Any] | None = None  # what was known when an error ended a loop
        self._list_stations: Callable[[], Sequence[Station]] | None = None
        self._part: tuple[int, int, str] | None = None
        self._loops: list[_Loop] = []
        self._station_started = 0.0
        self._main: _Loop | None = None  # the last loop of this stage that is not passing
        self._next_tick = {id(output): 0.0 for output in self.outputs}
        self._next = 0.0
        self._said_too_long = False

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        for output in self.outputs:
            output.close()

    # --- what is reported -----------------------------------------------------------------------------------------

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        with self._loop(_Loop(self, title, total, passing=False)) as loop:
            self._main = loop
            yield loop

    def passing(self, title: str, total: float) -> AbstractContextManager[Bar]:
        return self._loop(_Loop(self, title, total, passing=True))

    @contextmanager
    def _loop(self, loop: _Loop) -> Iterator[_Loop]:
        self._loops.append(loop)
        self.emit("loop_started", loop=loop.title)
        try:
            yield loop
        except BaseException:
            self.at_error = self.at_error or self.now()
            raise
        finally:
            self._loops.remove(loop)
            seconds = time.monotonic() - loop.started
            self.emit("loop_ended", loop=loop.title, seconds=seconds, passing=loop.passing)

    def say(self, text: str) -> None:
        if self._list_stations is None and not self._loops:  # in a loop: of work that is done once
            self.first_notes.append(text)
        self.emit("note", text=text)

    def opened(self, folder: Path) -> None:
        self.folder = folder
        self.emit("opened")

    def closed(self) -> None:
        self.emit("closed")

    def part(self, number: int, count: int, name: str) -> None:
        self._part = (number, count, name)

    def plan(self, stations: Callable[[], Sequence[Station]]) -> None:
        self._list_stations = stations
        self.run_plan = RunPlan()
        self.run_plan.replace(stations())
        fields = {"stages": self.run_plan.total, "stages_done": self.run_plan.done, "run": self._run_fields()}
        self.emit("run_started", folder=str(self.folder), **fields)

    @contextmanager
    def stage(self, station: Station) -> Iterator[None]:
        if station.key not in self.run_plan and self._list_stations is not None:
            change = self.run_plan.replace(self._list_stations())  # a result of an earlier stage has changed the rest
            if change:
                self.say(run_text.changed_plan(change))
        if (foreseen := self.run_plan.station(station.key)) is None:
            self.run_plan.add(station)
        self.station, self._main, self._station_started = foreseen or station, None, time.monotonic()
        self.emit("stage_started", **self.stage_fields())
        yield
        seconds, fields = time.monotonic() - self._station_started, self.stage_fields()
        self.run_plan.end(self.station, seconds)
        self.station = None
        self.emit("stage_ended", **fields, seconds=seconds, values=self._main.values if self._main else {})

    def found(self, key: str, seconds: float) -> None:
        self.run_plan.found(key, seconds)

    def score(
        self, row: str, seed: int, scores: Mapping[str, float | None], metric: str = "", metric_unit: str = ""
    ) -> None:
        self.emit("row_scored", row=row, seed=seed, **scores, metric=metric, metric_unit=metric_unit)

    def warn(self, sentence: str) -> None:
        self.emit("warning", text=sentence)

    def picture(self, name: str, image: Tensor) -> None:
        for output in self.outputs:
            output.picture(name, image)

    def hushed(self) -> Progress:
        self.outputs.clear()
        return SILENT

    def rest(self) -> None:
        """Nothing is computed for a while, so that other text can be printed."""
        self.emit("resting")

    def finish(self, **paths: str | None) -> None:
        """The command has done its work. paths: of what it wrote."""
        self.emit("done", **paths, seconds=self.seconds)

    @property
    def seconds(self) -> float:
        """Since the command began; a clock that is set anew does not change it."""
        return time.monotonic() - self._began

    def stop(self, reason: str, code: int, command: str) -> None:
        """The command ends before its work is done."""
        self.emit("stopped", reason=reason, code=code, command=command)

    # --- what is known --------------------------------------------------------------------------------------------

    def emit(self, event: str, **fields: Any) -> None:
        """Pass an event to all outputs."""
        for output in self.outputs:
            output.event(event, fields, self)

    def moved(self, now: float) -> None:
        """A loop has moved; outputs whose time has come are called."""
        if now < self._next:
            return
        for output in self.outputs:
            if now >= self._next_tick[id(output)]:
                if self._next_tick[id(output)]:
                    output.tick(self)
                self._next_tick[id(output)] = now + output.every
        self._next = min(self._next_tick.values(), default=float("inf"))
        self._say_if_too_long()

    def _say_if_too_long(self) -> None:
        """Once, where the run will take much longer than its recipe was made for."""
        expected = self.expected
        if expected is None or self._said_too_long or self.station is None or not self._settled(self._main):
            return
        if (left := self.now()["left"]) is None:
            return
        seconds = self.run_plan.spent + time.monotonic() - self._station_started + left
        if seconds > TOO_LONG * expected.budget_seconds:
            self._said_too_long = True
            self.say(run_text.too_long(seconds, expected.budget))

    def stage_fields(self) -> dict[str, Any]:
        """The running stage, and which of how many it is; without a stage, the name of the running loop."""
        return self._stage_fields(self.station, self._running())

    def _stage_fields(self, station: Station | None, loop: _Loop | None) -> dict[str, Any]:
        if station is None:
            return {"stage": loop and loop.title, "kind": None, "number": None, "of": None}
        plan, foreseen = self.run_plan, self._list_stations is not None
        of = plan.total if foreseen else None
        return {"stage": station.title, "kind": station.kind, "number": plan.done + 1, "of": of}

    def _running(self) -> _Loop | None:
        return next(reversed(list(self._loops)), None)

    def _stage_left(self, station: Station, main: _Loop | None, elapsed: float) -> float | None:
        """Seconds until the running stage ends; None: not known.

        The first steps of a loop are often slow, so they count little where it is known what such a stage takes.
        """
        if main is None or main not in list(self._loops):
            return None if main is None else 0.0
        left, usual = main.left, self.run_plan.usual(station, self._parts)
        if left and usual is not None and usual > elapsed and not main.settled:
            trust = min(1.0, main.seconds / SETTLED)
            return left**trust * (usual - elapsed) ** (1.0 - trust)
        return left

    @property
    def _parts(self) -> Mapping[str, float]:
        """Seconds by part, that the run was measured to take."""
        return {} if self.expected is None else self.expected.parts

    def _settled(self, main: _Loop | None) -> bool:
        """Whether nothing is said by the first steps of a loop alone."""
        return main is None or main not in list(self._loops) or main.settled

    def now(self) -> dict[str, Any]:
        """All that is known of the running stage and of the whole run, for every output; None: not known.

        The live view calls it from its own thread, so each attribute that may change is read once.
        """
        station, loop, main = self.station, self._running(), self._main
        elapsed, left, so_far = 0.0, None, 0.0
        if station is not None:
            elapsed = time.monotonic() - self._station_started
            so_far = elapsed + (0.0 if main is None else main.before)
            left = self._stage_left(station, main, so_far)
        elif loop is not None:
            elapsed, left = time.monotonic() - loop.started, loop.left
        whole = None
        if self._list_stations is not None:
            own = None if station is None else left
            whole = self.run_plan.left(station, so_far, own, self._parts, self._settled(main))
        speed = None if loop is None else loop.speed
        return {
            **self._stage_fields(station, loop),
            "run": self._run_fields(),
            "loop": loop and loop.title,
            "done": loop and loop.done,
            "total": loop and loop.total,
            "unit": loop.counted if loop else Bar.unit,
            "images_per_second": speed * loop.images if loop and speed and loop.images else None,
            "stage_seconds": elapsed,
            "stage_left": left,
            "left": whole,
            "values": dict(main.values) if main else {},
            "metric": main.metric if main else "",
            "metric_unit": main.metric_unit if main else "",
            "note": loop.note if loop else "",
        }

    def _run_fields(self) -> dict[str, Any] | None:
        return None if self._part is None else dict(zip(("number", "of", "name"), self._part, strict=True))
