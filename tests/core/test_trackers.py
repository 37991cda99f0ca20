"""Trackers get curves, scores and pictures from the same observer as everything else."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from cgankd.cli.watch import watching
from cgankd.core.errors import OutOfTime, TrainingError, UserError
from cgankd.core.own_loggers import MlflowLogger, WandbLogger
from cgankd.core.trackers import Tracker, choose
from cgankd.core.watching import Output, Watched

RECIPE = "seeds: [0, 1]\ndata: {source: digits, size: null}\n"
SETTINGS = {"seeds": [0, 1], "data": {"source": "digits", "size": None}}


def report(tracker: Tracker, folder: Path) -> None:
    """What a short run reports."""
    with Watched([tracker]) as watched:
        watched.opened(folder)
        with watched.bar("teacher (seed 0)", 2) as bar:
            bar.log({"step": 1, "loss": 0.5, "learning_rate": 0.1})
            bar.log({"step": 2, "loss": 0.25, "learning_rate": 0.05, "val": 91.0})
        watched.picture("generator/samples", torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4))
        watched.score("kd+sp@fake", 1, {"validation": 95.0, "test": None})


def test_names() -> None:
    assert choose("csv") == "csv"
    assert choose("none") == "none"
    with pytest.raises(UserError, match=r"--track 'wandbb' is not known; allowed: .*none \(did you mean 'wandb'\?\)"):
        choose("wandbb")


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose(None) == "none"
    with pytest.raises(UserError, match=r"--track mlflow needs mlflow: pip install 'cgankd\[track\]'"):
        choose("mlflow")


def test_tensorboard_is_the_default_and_gets_curves_scores_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert choose(None) == "tensorboard"
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    report(Tracker("tensorboard", with_training=True), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (settings,) = events.Tensors("settings/text_summary")
    assert RECIPE.encode() in settings.tensor_proto.string_val[0]
    curves = {tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert curves == {
        "teacher-seed-0/loss": [(1, 0.5), (2, 0.25)],
        "teacher-seed-0/learning_rate": [(1, 0.1), (2, 0.05)],
        "teacher-seed-0/val": [(2, 91.0)],
        "validation/kd-sp-fake": [(1, 95.0)],
    }
    (picture,) = events.Images("generator/samples")
    assert (picture.width, picture.height) == (4, 3)


def test_csv(tmp_path: Path) -> None:
    report(Tracker("csv"), tmp_path)
    with (tmp_path / "csv" / "version_0" / "metrics.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["step"], line["teacher-seed-0/loss"], line["validation/kd-sp-fake"]) for line in lines] == [
        ("1", "0.5", ""), ("2", "0.25", ""), ("1", "", "95.0"),
    ]  # fmt: skip


class Recorder:
    """Stands for a package: notes every call of any of its functions."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **named: Any) -> Recorder:
            self.calls.append((name, args, named))
            return self

        return call


def test_wandb_plots_each_stage_over_its_own_steps(tmp_path: Path) -> None:
    package = Recorder()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    report(Tracker("wandb", lambda _, folder: WandbLogger(package, folder)), tmp_path)
    assert [(name, args, named) for name, args, named in package.calls if name != "Image"] == [
        ("init", (), {"project": "cgankd", "name": tmp_path.name, "dir": str(tmp_path), "config": SETTINGS}),
        ("define_metric", ("teacher-seed-0/*",), {"step_metric": "teacher-seed-0/step"}),
        ("log", ({"teacher-seed-0/loss": 0.5, "teacher-seed-0/learning_rate": 0.1, "teacher-seed-0/step": 1},), {}),
        ("log", ({"teacher-seed-0/loss": 0.25, "teacher-seed-0/learning_rate": 0.05, "teacher-seed-0/val": 91.0,
                  "teacher-seed-0/step": 2},), {}),
        ("log", ({"generator/samples": package},), {}),
        ("define_metric", ("validation/*",), {"step_metric": "validation/step"}),
        ("log", ({"validation/kd-sp-fake": 95.0, "validation/step": 1},), {}),
        ("finish", (), {"exit_code": 0}),
    ]  # fmt: skip
    (pixels,) = next(args for name, args, _ in package.calls if name == "Image")
    assert pixels.shape == (3, 4, 3)
    assert pixels[2, 3].tolist() == [11, 11, 11]


def test_mlflow(tmp_path: Path) -> None:
    package = Recorder()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    report(Tracker("mlflow", lambda _, folder: MlflowLogger(package, folder)), tmp_path)
    assert [name for name, _, _ in package.calls] == [
        "set_experiment", "start_run", "log_params", "log_metrics", "log_metrics", "log_image", "log_metrics",
        "end_run",
    ]  # fmt: skip
    assert package.calls[2][1] == ({"seeds": [0, 1], "data.source": "digits"},)
    assert package.calls[3][1:] == (({"teacher-seed-0/loss": 0.5, "teacher-seed-0/learning_rate": 0.1},), {"step": 1})
    assert package.calls[5][1][1] == "generator-samples.png"
    assert package.calls[-1] == ("end_run", (), {"status": "FINISHED"})


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (TrainingError("the loss is not finite"), "FAILED"),
        (ValueError("a bug"), "FAILED"),
        (OutOfTime("the time limit is reached"), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
def test_a_run_that_does_not_end_well_is_not_shown_as_a_success(
    error: BaseException, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {}
    for name in ("wandb", "mlflow"):
        package = Recorder()
        monkeypatch.setitem(sys.modules, name, package)  # type: ignore[arg-type]
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        with contextlib.suppress(type(error)), watching(quiet=True, track=name) as watched:
            watched.opened(tmp_path)
            with watched.bar("teacher", 2) as bar:
                bar.log({"step": 1, "loss": 0.5})
            raise error
        ends[name] = package.calls[-1]
    assert ends == {"wandb": ("finish", (), {"exit_code": 1}), "mlflow": ("end_run", (), {"status": shown})}


def test_the_address_that_mlflow_prints_is_not_in_the_output_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Printing(Recorder):
        def end_run(self, status: str) -> None:
            print("View run at: http://localhost")

    report(Tracker("mlflow", lambda _, folder: MlflowLogger(Printing(), folder)), tmp_path)
    assert capsys.readouterr() == ("", "View run at: http://localhost\n")


def test_a_tracker_that_cannot_be_opened_stops_the_run_in_a_sentence(tmp_path: Path) -> None:
    def refuse(name: str, folder: Path) -> Any:
        raise ConnectionError("no server\nthere")

    with pytest.raises(UserError, match=r"^--track mlflow fails: ConnectionError: no server there; allowed: --tr"):
        report(Tracker("mlflow", refuse), tmp_path)


@pytest.mark.parametrize("failing", ["log_metrics", "log_image", "end_run"])
def test_the_run_goes_on_without_a_tracker_that_fails_later(failing: str, tmp_path: Path) -> None:
    class Failing(Recorder):
        def __getattr__(self, name: str) -> Any:
            call = super().__getattr__(name)
            if name == failing:
                raise ConnectionError("the server has gone")
            return call

    notes: list[str] = []

    class Notes(Output):
        def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
            if event == "note":
                notes.append(fields["text"])

    opened: list[Path] = []

    def open_logger(name: str, folder: Path) -> MlflowLogger:
        opened.append(folder)
        return MlflowLogger(Failing(), folder)

    tracker = Tracker("mlflow", open_logger)
    with Watched([tracker, Notes()]) as watched:
        watched.opened(tmp_path)
        for step in (1, 2):
            with watched.bar("teacher", 2) as bar:
                bar.log({"step": step, "loss": 0.5})
            watched.picture("generator/samples", torch.zeros(1, 3, 4, dtype=torch.uint8))
    why = "ConnectionError: the server has gone"
    assert notes == [f"--track mlflow fails, and the run goes on without it: {why}"]
    assert opened == [tmp_path]


@pytest.mark.parametrize(("with_training", "files"), [(True, []), (False, ["csv"])])
def test_the_scores_of_an_earlier_run_are_logged_where_a_tracker_was_asked_for(
    with_training: bool, files: list[str], tmp_path: Path
) -> None:
    with Watched([Tracker("csv", with_training=with_training)]) as watched:
        watched.opened(tmp_path)
        watched.score("kd", 0, {"validation": 95.0, "test": None})
    assert [path.name for path in tmp_path.iterdir()] == files


def test_nothing_is_opened_where_nothing_was_logged(tmp_path: Path) -> None:
    with Watched([Tracker("csv")]) as watched:
        watched.opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long  # a process that imports torch
def test_tensorboard_needs_no_compiler(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    code = """
import pathlib, sys
from cgankd.core.trackers import open_logger_of
open_logger_of("tensorboard", pathlib.Path(sys.argv[1])).log_metrics({"loss": 1.0}, 1)
assert "torch.utils.tensorboard" in sys.modules
assert not {"torch._dynamo", "lightning_fabric"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
