"""One observer of a run: what its outputs get, what is known of the whole run, and lines for people and programs."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cgankd.core import run_text, watching
from cgankd.core.run_plan import Expected, RunPlan, Station
from cgankd.core.views import JsonLines, LiveView, PlainLines, view
from cgankd.core.watching import Output, Watched


class Clock:
    """Stands for the module time: seconds pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watching, "time", clock)
    return clock


class Events(Output):
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        self.events.append((event, dict(fields)))


def station(name: str, amount: float = 10.0, seconds: float | None = None, alike: str = "fit") -> Station:
    return Station(name, name, "train_student", alike, amount, seconds)


# --- the plan -----------------------------------------------------------------------------------------------------


def test_finished_stations_count_as_done() -> None:
    plan = RunPlan()
    plan.replace([station("a", seconds=4.0), station("b"), station("c")])
    assert (plan.done, plan.total) == (1, 3)
    plan.end(station("b"), 5.0)
    assert (plan.done, plan.total) == (2, 3)
    plan.replace([station("a", seconds=4.0), station("d")])  # b ended here, so it still counts
    assert (plan.done, plan.total) == (2, 3)


def test_stations_that_turn_out_to_be_unnecessary_count_as_done() -> None:
    plan = RunPlan()
    plan.replace([station("ratio"), station("burn-in"), station("images"), station("student")])
    plan.end(station("ratio"), 1.0)
    assert plan.replace([station("ratio"), station("other images"), station("other student")]) == -1
    assert (plan.done, plan.total) == (2, 4)
    plan.end(station("other images"), 1.0)
    plan.end(station("other student"), 1.0)
    assert (plan.done, plan.total) == (4, 4)
    assert plan.replace([station("ratio"), *(station(name) for name in ("other images", "x", "y"))]) == 2
    assert (plan.done, plan.total) == (4, 6)


def test_the_time_left_is_that_of_similar_stations_scaled_by_their_amount() -> None:
    plan = RunPlan()
    plan.replace([station("a", amount=10, seconds=20.0), station("b", amount=30), station("c", amount=5, alike="gan")])
    # b: 2 s for each unit, as a; c is like none, so the mean of all that is measured: 2 s too
    assert plan.left(None, 0.0, None) == 60.0 + 10.0
    # b runs: half of its 30 units took 15 s, so all that is measured took 35 s for 25 units
    assert plan.left(station("b", amount=30), 15.0, 15.0) == 15.0 + 5 * 35 / 25
    # as long as its first steps say nothing about others, c needs 2 s for each unit
    assert plan.left(station("b", amount=30), 15.0, 15.0, settled=False) == 15.0 + 10.0
    # b runs, and its end is not known: 60 s as a, of which 15 have passed
    assert plan.left(station("b", amount=30), 15.0, None) == 45.0 + 10.0


def test_alike_stations_of_this_process_count_before_those_of_an_earlier_one() -> None:
    plan = RunPlan()
    plan.replace([station("a", seconds=400.0), station("b"), station("c"), station("d", alike="gan", seconds=1.0)])
    # seed 0 took 400 s beside other programs; now seed 1 needs 50 s, so seed 2 needs as long
    assert plan.left(station("b"), 10.0, 40.0) == 40.0 + 50.0
    plan.end(station("b"), 50.0)
    assert plan.left(None, 0.0, None) == 50.0
    plan.replace([station("a", seconds=400.0), station("b", seconds=50.0), station("c")])  # b is still of this process
    assert plan.left(None, 0.0, None) == 50.0


def test_nothing_is_known_before_anything_was_measured() -> None:
    plan = RunPlan()
    plan.replace([station("a"), station("b")])
    assert plan.left(station("a"), 1.0, None) is None
    assert plan.left(station("a"), 5.0, 5.0) == 15.0


def test_stations_without_work_take_no_time() -> None:
    plan = RunPlan()
    plan.replace([station("data", amount=0.0), station("a", seconds=1.0)])
    assert plan.left(None, 0.0, None) == 0.0


def test_a_time_measured_before_the_run_counts_for_kinds_of_stations_that_were_not_measured_yet() -> None:
    plan = RunPlan()
    gan = Station("gan", "gan", "train_generator", "train_generator", 500.0)
    plan.replace([station("a", seconds=20.0), station("b", alike="student"), station("c", 20.0, alike="student"), gan])
    parts = {"students": 80.0, "generator": 300.0}
    # b and c are three quarters of the students' work; a took longer than was expected, which says nothing about gan
    assert plan.left(None, 0.0, None, parts) == 60.0 + 300.0
    # b runs and its end is known, so c will take 60 s
    assert plan.left(station("b", alike="student"), 10.0, 20.0, parts) == 20.0 + 60.0 + 300.0
    assert plan.left(gan, 900.0, 100.0, parts) == 100.0 + 60.0  # a part that takes longer changes no other


# --- the observer -------------------------------------------------------------------------------------------------


def test_what_is_known_inside_a_stage(clock: Clock) -> None:
    watched = Watched()
    watched.plan(lambda: [station("data", seconds=0.5, amount=0.0), station("teacher"), station("nokd", amount=20.0)])
    with watched.stage(Station("teacher", "ignored", "ignored")), watched.bar("teacher", 100) as bar:
        bar.images = 64
        bar.to(40)  # a resumed loop
        clock.now += 10.0
        bar.to(60, "half")
        bar.log({"step": 60, "loss": 0.5, "val": 91.0})
        now = watched.now()
    assert {name: now[name] for name in ("stage", "kind", "number", "of", "done", "total", "unit", "note")} == {
        "stage": "teacher", "kind": "train_student", "number": 2, "of": 3, "done": 60, "total": 100, "unit": "steps",
        "note": "half",
    }  # fmt: skip
    assert now["values"] == {"loss": 0.5, "val": 91.0}
    assert now["images_per_second"] == 2.0 * 64
    assert now["stage_seconds"] == 10.0
    assert now["stage_left"] == 20.0
    assert now["left"] == 20.0 + 100.0  # the teacher: 20 s before, 10 s now and 20 s to come, for 10 units
    assert run_text.line(now) == (
        "[2/3] teacher 60/100 steps, 128 images/s, half, loss 0.5, validation 91, 20 s left; whole run 2 min left"
    )


def test_other_stages_are_not_estimated_from_the_first_steps_of_a_loop(clock: Clock) -> None:
    watched = Watched()
    watched.plan(lambda: [station("teacher"), station("nokd")])
    with watched.stage(station("teacher")), watched.bar("teacher", 1000) as bar:
        bar.to(1)
        clock.now += 9.0
        bar.to(10)
        assert (watched.now()["left"], watched.now()["stage_left"]) == (None, 990.0)
        clock.now += 6.0
        bar.to(25)  # 15 s, but 2.4 % of the steps
        assert watched.now()["left"] is None
        bar.to(31)
        assert watched.now()["left"] == pytest.approx(969 / 2.0 + 1000 / 2.0)
    with watched.stage(station("nokd")), watched.bar("nokd", 100_000) as bar:
        bar.to(0)
        clock.now += 60.0
        bar.to(600)  # a share of 0.6 %, but a whole minute
        assert watched.now()["left"] == 9940.0


def test_the_time_left_of_the_whole_run_holds_that_of_the_stage(clock: Clock) -> None:
    watched = Watched()
    watched.plan(lambda: [station("a", seconds=4000.0), station("b"), station("c")])
    with watched.stage(station("b")), watched.bar("b", 100) as bar:
        bar.to(0)
        clock.now += 2.0
        bar.to(1)  # 200 s in all, but its first steps say nothing about c
        # and little about b itself: as a, it needs 4000 s
        left = 198.0**0.2 * 3998.0**0.8
        assert (watched.now()["stage_left"], watched.now()["left"]) == (left, left + 4000.0)
        clock.now += 18.0
        bar.to(10)
        assert (watched.now()["stage_left"], watched.now()["left"]) == (180.0, 180.0 + 200.0)


def test_steps_before_the_first_report_are_of_this_process(clock: Clock) -> None:
    watched = Watched()
    watched.plan(lambda: [station("a"), station("b")])
    with watched.stage(station("a")), watched.bar("a", 10) as bar:
        for step in range(1, 6):
            clock.now += 10.0
            bar.to(step)
        assert watched.now()["left"] == 50.0 + 100.0


def test_a_run_that_takes_much_longer_than_its_recipe_was_made_for_says_so_once(clock: Clock) -> None:
    watched = Watched([events := Events()])
    events.every = 2.0
    watched.expected = Expected("10m", 600.0, {})
    watched.plan(lambda: [station("teacher"), station("nokd")])
    with watched.stage(station("teacher")), watched.bar("teacher", 1000) as bar:
        for step in range(1, 100):
            bar.to(step)
            clock.now += 3.0
    notes = [fields["text"] for event, fields in events.events if event == "note"]
    assert notes == [
        "the whole run will take about 1 h 40 min, but its recipe was made for --budget 10m; Ctrl-C stops it"
    ]


def test_a_stage_that_was_not_foreseen_renews_the_plan(clock: Clock) -> None:
    lists = [[station("a"), station("b")], [station("a"), station("other"), station("c")]]
    watched = Watched([events := Events()])
    watched.plan(lambda: lists.pop(0))
    for name in ("a", "other", "late"):
        if not lists:
            lists.append([station("a"), station("other"), station("c")])
        with watched.stage(Station(name, name, "kind")):
            pass
    started = [
        (fields["stage"], fields["number"], fields["of"]) for event, fields in events.events if event == "stage_started"
    ]
    assert started == [("a", 1, 2), ("other", 2, 3), ("late", 3, 4)]
    notes = [fields["text"] for event, fields in events.events if event == "note"]
    assert notes == ["1 more stage: by the results so far, it is needed"]


def test_a_stage_that_is_skipped_leaves_the_total_as_it_was(clock: Clock) -> None:
    lists = [[station(name) for name in ("ratio", "burn-in", "images")], [station("ratio"), station("all images")]]
    stream = io.StringIO()
    watched = Watched([PlainLines(Console(file=stream, width=80))])
    watched.opened(Path("runs/x"))
    watched.plan(lambda: lists.pop(0))
    for name in ("ratio", "all images"):
        with watched.stage(Station(name, name, "kind")):
            pass
    assert stream.getvalue().splitlines() == [
        "3 stages; folder runs/x",
        "[1/3] ratio",
        "1 stage is skipped: by the results so far, it is not needed",
        "[3/3] all images",
    ]


def test_a_stage_that_another_process_has_computed_counts_as_done(clock: Clock) -> None:
    watched = Watched()
    watched.plan(lambda: [station("a"), station("b"), station("c", seconds=4.0)])
    for key in ("a", "b", "c", "unknown"):
        if key == "b":
            with watched.stage(station("b")):
                clock.now += 5.0
        watched.found(key, 10.0)
    # b took 10 s, 5 of them before this process
    assert (watched.run_plan.done, watched.run_plan.total, watched.run_plan.spent) == (3, 3, 24.0)


def test_a_stage_that_fails_did_not_end() -> None:
    watched = Watched([events := Events()])
    with pytest.raises(ValueError), watched.stage(station("a")):
        raise ValueError
    assert [event for event, _ in events.events] == ["stage_started"]
    assert watched.now()["stage"] == "a"  # for the status file


def test_outputs_tick_at_their_own_pace(clock: Clock) -> None:
    class Ticks(Output):
        def __init__(self, every: float) -> None:
            self.every, self.at = every, list[float]()

        def tick(self, watched: Watched) -> None:
            self.at.append(clock.now - 1000.0)

    fast, slow, never = Ticks(2.0), Ticks(5.0), Output()
    with Watched([fast, slow, never]).bar("loop", 100) as bar:
        for step in range(12):
            bar.to(step)
            clock.now += 1.0
    assert fast.at == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert slow.at == [5.0, 10.0]


def test_a_run_without_a_plan_counts_its_stages() -> None:
    watched = Watched()
    with watched.stage(station("a")):
        pass
    with watched.stage(station("b")):
        now = watched.now()
    assert (now["number"], now["of"], now["left"]) == (2, None, None)
    assert run_text.place(now) == "[2]"


def test_values_of_an_older_status_file_have_no_metric() -> None:
    assert run_text.values({"values": {"val": 91.0}}) == "validation 91"


# --- people and programs ------------------------------------------------------------------------------------------


def a_small_run(watched: Watched, clock: Clock) -> None:
    with watched:
        watched.opened(Path("runs/x"))
        watched.plan(lambda: [station("data", seconds=1.0, amount=0.0), station("kd (seed 0)")])
        with watched.stage(station("kd (seed 0)")), watched.bar("kd (seed 0)", 4) as bar:
            bar.images, bar.metric, bar.metric_unit = 10, "accuracy", "%"
            for step in range(1, 5):
                bar.to(step)
                clock.now += 20.0
            bar.log({"step": 4, "loss": float("nan"), "val": 95.0})
        watched.score("kd", 0, {"validation": 95.0, "test": 93.25}, "accuracy", "%")
        watched.warn("Few seeds.")
        watched.say("a note")
        watched.finish(results="runs/x/results.json")


def test_lines_of_a_log(clock: Clock) -> None:
    stream = io.StringIO()
    a_small_run(Watched([PlainLines(Console(file=stream, width=40))]), clock)
    assert stream.getvalue().splitlines() == [
        "2 stages, 1 of them done before; folder runs/x",
        "[2/2] kd (seed 0)",
        "[2/2] kd (seed 0) 3/4 steps, 0 images/s, 20 s left; whole run 20 s left",
        "[2/2] kd (seed 0): 1 min, loss nan, validation accuracy 95 %",
        "kd (seed 0): validation accuracy 95 %, test accuracy 93.25 %",
        "a note",
    ]


def test_json_lines(clock: Clock) -> None:
    stream = io.StringIO()
    a_small_run(Watched([JsonLines(stream)]), clock)
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [record["event"] for record in records] == [
        "run_started", "stage_started", "progress", "progress", "progress", "stage_ended", "row_scored", "warning",
        "note", "done",
    ]  # fmt: skip
    assert all(isinstance(record["time"], float) for record in records)
    plain = [{name: value for name, value in record.items() if name not in ("event", "time")} for record in records]
    assert plain[0] == {"folder": "runs/x", "stages": 2, "stages_done": 1, "run": None}
    assert plain[1] == {"stage": "kd (seed 0)", "kind": "train_student", "number": 2, "of": 2}
    assert plain[3]["done"] == 3
    assert plain[3]["images_per_second"] == 0.5
    assert (plain[3]["metric"], plain[3]["metric_unit"]) == ("accuracy", "%")
    assert plain[5] == {**plain[1], "seconds": 80.0, "values": {"loss": None, "val": 95.0}}
    assert plain[6] == {"row": "kd", "seed": 0, "validation": 95.0, "test": 93.25, "metric": "accuracy",
                        "metric_unit": "%"}  # fmt: skip
    assert plain[9] == {"results": "runs/x/results.json", "seconds": 80.0}


def test_a_reader_that_leaves_does_not_end_the_run(clock: Clock) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        a_small_run(Watched([JsonLines(stream)]), clock)
        stream.write("to nowhere")


def test_the_live_view_is_for_terminals_that_move_their_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(view(Console(file=io.StringIO(), force_terminal=True)), LiveView)
    assert isinstance(view(Console(file=io.StringIO())), PlainLines)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(view(Console(file=io.StringIO(), force_terminal=True)), PlainLines)


@pytest.mark.parametrize("no_colour", [False, True])
def test_the_live_view_fits_eighty_characters(clock: Clock, no_colour: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True, color_system="truecolor", no_color=no_colour)
    watched = Watched([live := LiveView(console)])
    with watched:
        watched.plan(lambda: [station("a", seconds=100.0), station("cgan+kd+rkd@fake (seed 0)"), station("b")])
        with (
            watched.stage(station("cgan+kd+rkd@fake (seed 0)")),
            watched.bar("cgan+kd+rkd@fake (seed 0)", 120_000) as bar,
        ):
            bar.images = 128
            bar.to(0)
            clock.now += 100.0
            bar.to(60_000)
            bar.metric, bar.metric_unit = "mae", "degrees"
            bar.log({"step": 60_000, "loss": 0.25, "val": 81.5})
            with console.capture() as shown:
                console.print(live._render())
    plain = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", shown.get()).replace("\r", "")
    stage, whole, values = plain.rstrip("\n").split("\n")[-3:]
    assert stage.startswith("cgan+kd+rkd@fake (seed 0)")
    assert stage.rstrip().endswith("60000/120000, 76,800 img/s, 2 min left")
    assert whole.startswith("whole run")
    assert whole.rstrip().endswith("stage 2/3, 5 min left")
    assert values.strip() == "loss 0.25, validation MAE 81.5 degrees"
    assert max(map(len, (stage, whole, values))) <= 80
    assert ("38;" in shown.get()) is not no_colour
