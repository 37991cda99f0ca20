"""Several cells at once: in which order they start, what replaces a worker that dies, how all of them stop."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cgankd.core.errors import OutOfTime, UserError
from cgankd.core.progress import SILENT, Bar, Progress
from cgankd.core.stopping import reason_to_stop
from cgankd.experiments import executors, worker
from cgankd.experiments.executors import Executor, Opened, all_done, opened, run_all
from cgankd.experiments.worker import Outcome

DONE, STOPPED = Outcome("done"), Outcome("stopped", "the time limit is reached")
DEAD = None


class Notes(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Pretended:
    """Starts workers that end at once, or never; each cell has a list of how its workers end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, ends: Sequence[list[Any]]) -> None:
        self.ends, self.started, self.asked = ends, list[tuple[int, int]](), list[int]()
        self.folders = [folder / str(number) for number in range(len(ends))]
        for cell in self.folders:
            cell.mkdir()
        monkeypatch.setattr(executors, "LOOK_AGAIN", 0.0)

    def start(self, folder: Path, slot: int) -> Pretended.One:
        number = int(folder.name)
        self.started.append((number, slot))
        end = self.ends[number].pop(0)
        if isinstance(end, Outcome):
            (folder / worker.OUTCOME).write_text(json.dumps(dataclasses.asdict(end)))
        return self.One(self, number, ended=end != "never")

    class One:
        def __init__(self, all_of: Pretended, number: int, ended: bool) -> None:
            self.all_of, self.number, self.ended = all_of, number, ended

        def is_done(self) -> bool:
            return self.ended

        def stop(self) -> None:
            self.all_of.asked.append(self.number)
            self.ended = True

    def run(self, jobs: int, progress: Progress = SILENT, deadline: float = math.inf) -> list[tuple[int, Outcome]]:
        names = [f"cell {number}" for number in range(len(self.folders))]
        return list(run_all(self.folders, names, Opened(self.start, jobs), progress, Bar(), deadline))


def test_as_many_as_wanted_run_at_once_in_places_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workers = Pretended(monkeypatch, tmp_path, [[DONE], [DONE], [DONE], [DONE], [DONE]])
    assert workers.run(2) == [(number, DONE) for number in range(5)]
    assert workers.started == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]


@pytest.mark.parametrize(
    ("failed", "others"), [(1, ""), (2, " (and 1 more run failed)"), (3, " (and 2 more runs failed)")]
)
def test_the_first_error_is_raised_with_the_number_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failed: int, others: str
) -> None:
    workers = Pretended(monkeypatch, tmp_path, [[Outcome("failed", "no teacher", user=True)] for _ in range(failed)])
    names, bar = [f"cell {number}" for number in range(failed)], Bar()
    bar.unit = "runs"
    with pytest.raises(UserError, match=rf"^cell 0: no teacher{re.escape(others)}$"):
        list(all_done(workers.folders, names, Opened(workers.start, 1), SILENT, bar, math.inf))


def test_a_worker_that_dies_or_is_stopped_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workers, notes = Pretended(monkeypatch, tmp_path, [[DEAD, STOPPED, DEAD, DONE], [DONE]]), Notes()
    assert sorted(workers.run(2, notes)) == [(0, DONE), (1, DONE)]
    assert notes.said == [
        "cell 0: its worker died; another one goes on",
        "cell 0: its worker was stopped; another one goes on",
        "cell 0: its worker died; another one goes on",
    ]


def test_a_death_after_a_stop_is_a_death(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workers, notes = Pretended(monkeypatch, tmp_path, [[STOPPED, DEAD, DONE]]), Notes()
    assert workers.run(1, notes) == [(0, DONE)]
    assert notes.said == [
        "cell 0: its worker was stopped; another one goes on",
        "cell 0: its worker died; another one goes on",
    ]


def test_three_deaths_are_a_failure_and_the_other_cells_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = Outcome("failed", "the disk is full", user=True)
    workers = Pretended(monkeypatch, tmp_path, [[DEAD, DEAD, DEAD], [failed], [DONE]])
    dead = Outcome("failed", f"its workers died; {tmp_path / '0' / 'log.txt'} may say why")
    assert sorted(workers.run(1), key=lambda item: item[0]) == [(0, dead), (1, failed), (2, DONE)]


def test_all_are_asked_to_stop_where_the_time_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workers = Pretended(monkeypatch, tmp_path, [["never"], ["never"], ["never"]])
    with pytest.raises(OutOfTime, match="the time limit is reached"):
        workers.run(2, deadline=0.0)
    assert workers.asked == [0, 1]


def test_nothing_is_stopped_where_the_time_is_over_after_the_last_cell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Pretended(monkeypatch, tmp_path, [[DONE], [DONE]]).run(2, deadline=0.0) == [(0, DONE), (1, DONE)]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "cloud"}, "--executor cloud: allowed are processes, slurm, ray"),
        (
            {"resources": {"num_gpus": 1}},
            "--resources is for --executor slurm or ray; processes take what this machine has",
        ),
    ],
)
def test_what_is_not_allowed_is_said(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Executor(**settings)
    assert str(caught.value) == sentence


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(UserError, match=r"--executor slurm needs submitit: pip install 'cgankd\[slurm\]'"):
        opened(Executor("slurm"), tmp_path / "out", 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "resources", "sentence"),
    [
        ("slurm", {"cluster": "debug"}, "--executor slurm: cluster=debug is not allowed; allowed: slurm, local"),
        (
            "slurm",
            {"cluster": "local", "gpus": 1},
            "--executor slurm: Parameter 'gpus' need to be prefixed by an executor name",
        ),
        (
            "slurm",
            {"cluster": "local", "timeout_min": "4h"},
            '--executor slurm: Parameter "timeout_min" expected type <class \'int\'> (but value: "4h")',
        ),
        (
            "ray",
            {"address": "127.0.0.1:1"},
            "--executor ray: no cluster answers at address=127.0.0.1:1 ([Errno 111] Connection refused); needed: the "
            "HOST:PORT that ray start prints",
        ),
    ],
)
def test_resources_that_do_not_fit_are_refused(
    kind: str, resources: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    pytest.importorskip({"slurm": "submitit", "ray": "ray"}[kind])
    with pytest.raises(UserError) as caught:
        opened(Executor(kind, resources=resources), tmp_path / "out", 2)
    assert str(caught.value) == sentence
    assert not list(tmp_path.iterdir())


def command(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_job_that_slurm_does_not_take_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    command(tmp_path, "srun", "exit 0")
    command(tmp_path, "sbatch", "echo 'sbatch: error: invalid partition specified: no' >&2; echo more >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    start = opened(Executor("slurm", resources={"slurm_partition": "no"}), tmp_path / "out", 1).start
    with pytest.raises(UserError, match=r"^--executor slurm: sbatch: error: invalid partition specified: no$"):
        start(tmp_path, 0)


def test_where_there_is_no_slurm_any_cluster_means_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.AutoExecutor, "which", lambda given: "local")
    monkeypatch.setattr(submitit.AutoExecutor, "submit", lambda *given: None)
    start = opened(Executor("slurm", resources={"cluster": None}), tmp_path / "out", 1).start
    assert isinstance(start(tmp_path, 0), executors._LocalJob)


def test_the_users_own_filters_hide_no_job_of_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command(tmp_path, "squeue", f'echo "$* ${{SQUEUE_STATES-all}}" > {tmp_path}/asked')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")  # a job that waits would be taken for a dead one
    executors._Queue().lacks("8", 0.0)
    assert (tmp_path / "asked").read_text().split()[-2:] == ["--all", "all"]


def test_a_job_that_slurm_no_longer_has_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where it keeps no accounts, so that submitit never hears that the job was cancelled or killed."""
    command(tmp_path, "squeue", f"echo asked >> {tmp_path}/asked; cat {tmp_path}/jobs")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(executors, "ASK_SLURM", -1.0)
    (tmp_path / "jobs").write_text("7\n8\n")
    job = types.SimpleNamespace(job_id="8", paths=types.SimpleNamespace(result_pickle=tmp_path / "result"))
    worker = executors._SlurmJob(job, executors._Queue())
    assert not worker.is_done()
    (tmp_path / "jobs").write_text("7\n")
    assert not worker.is_done()  # what it wrote to a shared disk may come later
    assert worker.is_done()
    again = executors._SlurmJob(job, worker.queue)  # a new job, which those looks were too early for
    assert not again.is_done()
    assert again.is_done()
    (tmp_path / "jobs").unlink()  # Slurm's server does not answer
    restarted = executors._SlurmJob(job, executors._Queue())
    assert [restarted.is_done() for _ in range(4)] == [False] * 4
    (tmp_path / "result").touch()
    assert restarted.is_done()
    (tmp_path / "result").unlink()
    monkeypatch.setattr(executors, "ASK_SLURM", 60.0)
    asked = (tmp_path / "asked").read_text()
    worker.is_done()
    assert (tmp_path / "asked").read_text() == asked


def ray_whose_init(init: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = types.SimpleNamespace(init=lambda **settings: init(), remote=lambda **settings: lambda function: function)
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]


def test_ray_does_not_take_sigterm_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ray_whose_init(lambda: signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number)), monkeypatch)
    try:
        opened(Executor("ray"), tmp_path, 2)
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def init() -> None:
        raise Exception("The current node timed out during startup.\nMore lines.")

    ray_whose_init(init, monkeypatch)
    with pytest.raises(UserError) as caught:
        opened(Executor("ray"), tmp_path, 2)
    assert str(caught.value) == "--executor ray: The current node timed out during startup"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2], ids=lambda number: number.name)
def test_what_asks_a_worker_to_stop_makes_it_save(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compute(*arguments: Any) -> None:
        os.kill(os.getpid(), number)
        raise OutOfTime(reason_to_stop(math.inf) or "nobody asked")

    monkeypatch.setattr(worker, "_compute", compute)
    monkeypatch.chdir(tmp_path)
    (tmp_path / worker.TASK).write_text(json.dumps({"current_folder": str(tmp_path)}))
    worker.work(str(tmp_path))
    assert worker.read_outcome(tmp_path) == Outcome("stopped", f"it was asked to stop ({number.name})")
