"""What makes a finished run one that can't be answered at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgankd.core import unchanged
from cgankd.core.watching import Watched
from cgankd.data.sources import builtin_names


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Path]:
    """Settings that name a folder of images, a table elsewhere and weights; and the folder of their run."""
    monkeypatch.chdir(tmp_path)
    for name in ("images/a/1.png", "table/labels.csv", "table/more/2.png", "weights.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    written = ("results.json", "recipe.yaml", "student.onnx", "rejected.csv", "status.json")
    for name in (*written, "artifacts/one/artifact.json"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(name)
    settings = {
        "name": "mine: images", "data": {"source": "images", "unlabelled": "table/labels.csv"},
        "teacher": {"weights": str(tmp_path / "weights.safetensors")}, "seeds": [0, 1],
    }  # fmt: skip
    return settings, tmp_path / "out"


def finish(settings: dict[str, Any], out: Path) -> None:
    unchanged.keep(out, unchanged.before_run(out, settings, {"report": True}), {"notes": ["seen"]})


def said(settings: dict[str, Any], out: Path, report: bool = True) -> dict[str, Any] | None:
    return unchanged.said_before(out, unchanged.before_run(out, settings, {"report": report}))


def rewrite(path: Path) -> None:
    """Another content of the same length, at the same time as before."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_said_is_said_again_where_nothing_has_changed(world: tuple[dict[str, Any], Path]) -> None:
    settings, out = world
    assert said(settings, out) is None
    finish(settings, out)
    assert said(settings, out) == {"notes": ["seen"]}
    (out.parent / "elsewhere.txt").write_text("")
    (out / "work").mkdir()
    settings["data"] = {"source": str(out.parent)}  # around the run's folder
    finish(settings, out)
    (out / "work" / "begun").write_text("")
    assert said(settings, out) == {"notes": ["seen"]}
    assert said(settings, out, report=False) is None
    assert said({**settings, "seeds": [0]}, out) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda place: rewrite(place / "images/a/1.png"),
        lambda place: (place / "images/a/1.png").rename(place / "images/a/3.png"),
        lambda place: (place / "images/b.png").write_text(""),
        lambda place: (place / "images/b").mkdir(),  # a class without images
        lambda place: rewrite(place / "table/more/2.png"),
        lambda place: rewrite(place / "weights.safetensors"),
        lambda place: (place / "out/artifacts/one/artifact.json").unlink(),
        lambda place: rewrite(place / "out/student.onnx"),
        lambda place: (place / "out/results.json").unlink(),
        lambda place: (place / "out/report.html").write_text(""),
        lambda place: (place / "out/rejected.csv").unlink(),
        lambda place: rewrite(place / "out/status.json"),  # another command has begun there
        lambda place: (place / "out" / unchanged.STAMP).write_text("{"),
        lambda place: (place / "out" / unchanged.STAMP).write_text("[]"),
        lambda place: os.environ.update(CGANKD_DATA=str(place)),
        lambda place: os.chdir(place.parent),
    ],
)
def test_each_change_is_noticed(
    change: Callable[[Path], Any], world: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out = world
    settings["data"]["source"] = str(out.parent / "images")
    monkeypatch.setenv("CGANKD_DATA", "")
    finish(settings, out)
    assert said(settings, out) is not None
    change(out.parent)
    assert said(settings, out) is None


def test_images_in_the_folder_of_the_run_are_looked_at(world: tuple[dict[str, Any], Path]) -> None:
    settings, out = world
    settings["data"] = {"source": "table.csv"}
    Path("table.csv").write_text("file_name,label\nout/a/1.png,a")
    (out / "a").mkdir()
    (out / "a" / "1.png").write_text("image")
    finish(settings, out)
    assert said(settings, out) is not None
    rewrite(out / "a" / "1.png")
    assert said(settings, out) is None


def test_a_fetched_data_set_is_not_a_folder_of_its_name(world: tuple[dict[str, Any], Path]) -> None:
    out = world[1]
    assert set(builtin_names()) == unchanged.PACKAGED | unchanged.FETCHED
    Path("chairs").mkdir()  # such as the meshes that the data set is rendered from
    assert unchanged.before_run(out, {"data": {"source": "./chairs"}}, {}) is not None
    assert unchanged.before_run(out, {"data": {"source": "chairs"}}, {}) is None


def test_a_run_that_has_ended_is_not_failed_by_its_note(
    world: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out = world
    unchanged.keep(out, "before", {"page": "caf\udce9/report.html"})  # a name whose bytes are not UTF-8
    assert unchanged.said_before(out, "before") == {"page": "caf\udce9/report.html"}

    def full(*args: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unchanged, "write_text", full)
    finish(settings, out)
    assert said(settings, out) is None


def test_what_is_said_whenever_a_run_is_started_is_not_of_work_that_is_done_once() -> None:
    watched = Watched()
    watched.say("a setting has no effect")
    with watched.bar("reading images", 1):
        watched.say("images decoded, where later starts find them")
    watched.plan(list)
    watched.say("a teacher was trained")
    assert watched.first_notes == ["a setting has no effect"]


def test_another_program_is_noticed(world: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    finish(*world)
    monkeypatch.setattr(unchanged, "__version__", "0")
    assert said(*world) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"data": {"source": "cifar10"}},
        {"data": {"source": "s3://bucket/images"}},
        {"data": {"source": "digits", "unlabelled": "hf://owner/name"}},
        {"data": {"source": "digits"}, "student": {"network": "my.nets:small"}},
        {"data": {"source": "digits"}, "teacher": {"start": "timm/resnet18.a1_in1k"}},
        {"data": {"source": "digits"}, "teacher": [{"source": "http://127.0.0.1:8000"}]},
    ],
)
def test_what_a_run_reads_from_elsewhere_is_not_known(settings: dict[str, Any]) -> None:
    assert unchanged.before_run(Path("out"), {"data": {"source": "digits"}}, {}) is not None
    assert unchanged.before_run(Path("out"), settings, {}) is None


def test_so_many_files_are_not_looked_at(world: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings, out = world
    monkeypatch.setattr(unchanged, "MOST_FILES", 2)
    assert unchanged.before_run(out, settings, {}) is None
    finish(settings, out)
    assert not (out / unchanged.STAMP).exists()
