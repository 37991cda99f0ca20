"""What a person or a program sees of a run: a live view on a terminal, plain lines in a log, or JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cgankd.core import run_text
from cgankd.core.terminal import on_one_line, to_nowhere
from cgankd.core.watching import Output, Watched

PLAIN_SECONDS = 30.0
JSON_SECONDS = 2.0
INNER = ("opened", "closed", "loop_started", "loop_ended", "values", "resting")  # events that programs do not get
WORTH_A_LINE = 5.0  # seconds; a shorter stage or loop leaves no line behind, because the next one's line follows
TITLE_WIDTH = 26
BAR_WIDTH = 14


def view(console: Console) -> Output:
    """The live view on a terminal that can move its cursor, else plain lines."""
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainLines(console)


class _Lines(Output):
    """The lines that the live view and the log share."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._all_done = False  # of the run: then its table says what the lines of scores would say

    def print(self, text: str) -> None:
        self.console.print(on_one_line(text), markup=False, emoji=False, highlight=False, soft_wrap=True)

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        match event:
            case "run_started":
                self._all_done = fields["stages_done"] == fields["stages"]
                run = fields["run"]
                name = f"run {run['number']}/{run['of']}, {run['name']}: " if run else ""
                done = f", {fields['stages_done']} of them done before" if fields["stages_done"] else ""
                self.print(f"{name}{fields['stages']} stages{done}; folder {fields['folder']}")
            case "stage_ended" if fields["seconds"] >= WORTH_A_LINE:
                values = run_text.values({**watched.now(), **fields})
                text = f"{fields['stage']}: {run_text.duration(fields['seconds'])}{values and ', '}{values}"
                self.print(f"{run_text.place({**watched.now(), **fields})} {text}".strip())
            case "loop_ended" if watched.station is None and fields["seconds"] >= WORTH_A_LINE:
                self.print(f"{fields['loop']}: {run_text.duration(fields['seconds'])}")
            case "row_scored" if not self._all_done:
                self.print(run_text.score(fields))
            case "note":
                self.print(fields["text"])


class PlainLines(_Lines):
    """For a log: a line at each stage, and every half a minute."""

    every = PLAIN_SECONDS

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        if event == "stage_started":
            now = watched.now()
            whole = f"; whole run {run_text.duration(now['left'])} left" if now["left"] else ""
            self.print(f"{run_text.place(now)} {now['stage']}{whole}")
        super().event(event, fields, watched)

    def tick(self, watched: Watched) -> None:
        self.print(run_text.line(watched.now()))


class LiveView(_Lines):
    """For a terminal: a bar for the running stage and one for the whole run, under the lines of what has ended."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live: Live | None = None
        self._watched: Watched | None = None

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        if event == "resting":
            self.close()
        elif event in ("loop_started", "run_started", "stage_started") and self._live is None:
            self._watched = watched
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        super().event(event, fields, watched)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> Group | Text:
        assert self._watched is not None
        now = self._watched.now()
        if now["stage"] is None and now["left"] is None:
            return Text("")
        table = Table.grid(padding=(0, 1, 0, 0))
        for width in (TITLE_WIDTH, BAR_WIDTH):
            table.add_column(width=width, no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, overflow="ellipsis")
        if now["stage"] is not None:
            table.add_row(Text(on_one_line(now["stage"])), _bar(now["done"], now["total"]), Text(_facts(now)))
        if now["of"] is not None:
            plan, whole = self._watched.run_plan, now["left"]
            left = "" if whole is None else f", {run_text.duration(whole)} left"
            text = f"stage {run_text.place(now)}{left}".replace("[", "").replace("]", "")
            table.add_row(Text("whole run"), _bar(plan.done, plan.total), Text(text))
        inner = "" if now["loop"] in (None, now["stage"]) else now["loop"]
        details = ", ".join(part for part in (inner, now["note"], run_text.values(now)) if part)
        line = Text(on_one_line(details), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(table, line) if details else Group(table)


def _bar(done: float | None, total: float | None) -> ProgressBar:
    return ProgressBar(total=total or 1.0, completed=done or 0.0, width=BAR_WIDTH)


def _facts(now: Mapping[str, Any]) -> str:
    """Count, speed and time left in at most 38 characters."""
    left = now["stage_left"]
    speed = now["images_per_second"]
    parts = [
        run_text.count(now).removesuffix(" steps").removesuffix(" images"),
        f"{speed:,.0f} img/s" if speed else "",
        f"{run_text.duration(left)} left" if left else "",
    ]
    return ", ".join(part for part in parts if part) or f"{run_text.duration(now['stage_seconds'])}"


class JsonLines(Output):
    """For programs: one JSON object a line. Its keys are documented in docs/running.md."""

    every = JSON_SECONDS

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        if event not in INNER:
            self._write(event, fields)

    def tick(self, watched: Watched) -> None:
        self._write("progress", watched.now())

    def _write(self, event: str, fields: Mapping[str, Any]) -> None:
        record = {"event": event, "time": round(time.time(), 3), **run_text.finite(fields)}
        try:
            self.stream.write(json.dumps(record, allow_nan=False, ensure_ascii=True) + "\n")
            self.stream.flush()
        except BrokenPipeError:  # the reader has gone; the run goes on, and cgankd status still shows it
            to_nowhere(self.stream)
