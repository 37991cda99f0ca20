"""The autopilot's trials of a round at once: the same choice, whoever trains them, and workers that die."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from cgankd.config import recipe
from cgankd.config.recipe import Recipe
from cgankd.core.errors import TrainingError, UserError
from cgankd.core.files import write_json
from cgankd.core.watching import Output, Watched
from cgankd.experiments import executors, worker
from cgankd.experiments.executors import HERE, Executor
from cgankd.experiments.trials import run_with

TINY = {
    "seeds": [0],
    "data": {"source": "digits", "train_size": 60, "val_size": 50},
    "teacher": {"network": "cnn8", "fit": {"steps": 30, "batch_size": 16}},
    "student": {"network": "cnn8", "fit": {"steps": 2, "batch_size": 16}, "transfer_steps": 8, "real_share": 0.5},
    "generator": {"channels": 8, "latent": 8, "label_dim": 8, "steps": 3, "batch_size": 16, "ema_start": 1},
    "synthesis": {"images": 20, "filter": None, "subsampling": "none"},
    "metrics": {"generator": False},
    "compare": {"methods": "auto"},
    "runtime": {"threads": 1, "precision": "fp32"},
}
TWO = Executor(jobs=2)


def tiny(*overrides: str) -> Recipe:
    return recipe.from_tree(json.loads(json.dumps(TINY)), overrides)


class Events(Output):
    def __init__(self) -> None:
        self.stages, self.notes = list[str](), list[str]()

    def event(self, event: str, fields: Any, watched: Watched) -> None:
        if event == "stage_started":
            self.stages.append(fields["kind"])
        elif event == "note":
            self.notes.append(fields["text"])


class Workers:
    """Stands for the processes: each trial is trained in this process, but the first ``deaths`` workers do nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, deaths: int = 0) -> None:
        self.deaths, self.started, self.work = deaths, list[str](), worker.work
        monkeypatch.setattr(executors, "LOOK_AGAIN", 0.0)
        monkeypatch.setitem(executors._STARTS, "processes", lambda executor, out: self.start)  # type: ignore[index]

    def start(self, folder: Path, slot: int) -> Workers:
        self.started.append(folder.name)
        if len(self.started) > self.deaths:
            self.work(str(folder))
        return self

    def is_done(self) -> bool:
        return True

    def stop(self) -> None:
        """It has ended."""


@pytest.mark.long
def test_the_choice_is_that_of_one_job_although_a_worker_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("nokd_longer", "augment", "kd", "cgan_kd", "cgan+fm~plain")
    monkeypatch.setattr("cgankd.config.settings.compare.CANDIDATES", few)
    one, two = tmp_path / "one", tmp_path / "two"
    expected = run_with(HERE, tiny(), one, Watched(), deadline=math.inf)
    assert len(expected["autopilot"]["trials"]) == 9  # generated images are tried too

    workers = Workers(monkeypatch, deaths=1)
    with Watched([events := Events()]) as watched:
        found = run_with(TWO, tiny(), two, watched, deadline=math.inf)
    assert found["autopilot"] == expected["autopilot"]
    assert [row["values"] for row in found["rows"]] == [row["values"] for row in expected["rows"]]
    assert found["used"] == expected["used"]
    assert sorted(path.name for path in (two / "artifacts").iterdir()) == expected["used"]
    assert workers.started[:5] == ["augment-2", "kd-2", "augment-2", "cgan_kd-2", "cgan-fm-plain-2"]
    assert [name.rpartition("-")[2] for name in workers.started[5:]] == ["8", "8", "8"]  # the finalists and kd
    here = events.stages.count("train_student")
    assert here == 3  # a second round of one trial is for this process, twice, and the control
    assert events.notes.count("trial of augment, 2 steps: its worker died; another one goes on") == 1
    assert watched.run_plan.done == watched.run_plan.total

    workers.started.clear()  # all trials are there: nothing is started
    assert run_with(TWO, tiny(), two, Watched(), deadline=math.inf)["autopilot"] == expected["autopilot"]
    assert not workers.started


def test_a_trial_whose_workers_always_die_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Workers(monkeypatch, deaths=100)
    with pytest.raises(TrainingError, match=r"trial of augment, 2 steps: its workers died; .*augment-2.log.txt may"):
        run_with(TWO, tiny(), tmp_path, Watched(), deadline=math.inf)
    assert not (tmp_path / "results.json").exists()


def test_a_trial_of_another_kind_of_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(folder: str, parent: int | None = None) -> None:
        write_json(Path(folder) / worker.OUTCOME, dataclasses.asdict(worker.Outcome("done")))

    Workers(monkeypatch).work = elsewhere
    with pytest.raises(UserError, match="trial of augment, 2 steps has another key where it was made"):
        run_with(TWO, tiny(), tmp_path, Watched(), deadline=math.inf)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "compare.methods=[kd]",
            "--jobs and --executor make the autopilot's trials at once, but compare.methods is a list of rows, which "
            "has no trials; allowed: --jobs 1 with processes, or compare.methods=auto",
        ),
        (
            "runtime.devices=2",
            "--jobs and --executor train each trial in one process, but runtime.devices = 2 and runtime.nodes = 1; "
            "allowed: 1 and 1",
        ),
    ],
)
def test_what_has_no_trials_for_several_workers_is_refused(tmp_path: Path, word: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        run_with(TWO, tiny(word), tmp_path / "out", Watched(), deadline=math.inf)
    assert str(caught.value) == sentence
    assert not list(tmp_path.iterdir())


def test_a_worker_whose_parent_died_before_its_first_line_saves_and_stops(tmp_path: Path) -> None:
    """In a copy of this process, whose parent is another one than it is told."""
    cell = tmp_path / "cell"
    worker.write_task(cell, tiny("compare.methods=[nokd]", "teacher.fit.steps=100000"), tmp_path / "artifacts")

    def start() -> None:
        sys.argv = ["worker.py", str(2**22 + 1), str(cell)]  # no process has such a number
        del sys.modules[worker.__name__]
        runpy.run_module(worker.__name__, run_name="__main__")

    copy = multiprocessing.get_context("fork").Process(target=start)
    copy.start()
    copy.join()
    assert copy.exitcode == 0
    assert worker.read_outcome(cell) == worker.Outcome("stopped", "it was asked to stop (SIGTERM)")


def test_a_worker_is_told_which_process_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[list[str]]()
    monkeypatch.setattr("subprocess.Popen", lambda words, **more: started.append(words))
    executors.opened(TWO, tmp_path, 1).start(tmp_path, 0)
    assert started == [[sys.executable, "-m", worker.__name__, str(os.getpid()), str(tmp_path)]]
