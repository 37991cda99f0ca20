"""The folder of a run: what is refused, and what stays of a folder in which nothing was written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from cgankd.cli.clean import clean
from cgankd.core.errors import UserError
from cgankd.core.run_folder import HeldFolder, check_recipe, check_usable, earlier, read_results
from cgankd.core.status_file import read_status
from cgankd.report.run import read
from cgankd.shipping.bench import bench
from cgankd.shipping.finished import FinishedRun
from cgankd.shipping.predict import open_model


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_usable(tmp_path / "runs" / "deep" / "x", "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has bytes that are not UTF-8; needed: another name"):
        HeldFolder(tmp_path / "caf\udce9", "run")
    assert not list(tmp_path.iterdir())


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "runs" / "other").mkdir(parents=True)
    check_usable(tmp_path / "runs" / "x", "run")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]
    check_usable(tmp_path / "runs" / "other", "run")
    assert (tmp_path / "runs" / "other").is_dir()


def test_a_folder_that_was_written_to_stays(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path / "runs" / "x", "run")
    (tmp_path / "runs" / "x" / "recipe.yaml").touch()
    held.close()
    assert sorted(path.name for path in (tmp_path / "runs" / "x").iterdir()) == [".lock", "recipe.yaml"]


def test_a_new_holder_takes_over_an_empty_folder(tmp_path: Path) -> None:
    earlier = HeldFolder(tmp_path / "x", "run")
    later = HeldFolder(tmp_path / "x", "run", take_over=True)  # closing the earlier one removes the empty folder
    assert (tmp_path / "x" / ".lock").read_text() == "run"
    later.close()
    earlier.close()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_was_refused_does_not_stand_in_for_the_earlier_one(tmp_path: Path) -> None:
    earlier = HeldFolder(tmp_path / "x", "Distiller")
    with pytest.raises(UserError, match="is in use by another run") as refused:
        HeldFolder(tmp_path / "x", "run")
    assert refused.tb is not None  # a notebook keeps it too, and with it the object that was refused
    later = HeldFolder(tmp_path / "x", "Distiller", take_over=True)
    later.close()
    earlier.close()


def test_the_folder_of_another_command_is_refused(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path / "x", "continual")
    with pytest.raises(UserError, match="is in use by another run"):
        check_usable(tmp_path / "x", "run")
    (tmp_path / "x" / "results.json").touch()
    held.close()
    with pytest.raises(UserError, match="is a folder of cgankd continual, whose files would be overwritten"):
        check_usable(tmp_path / "x", "run")


def test_results_of_another_recipe_are_not_overwritten(tmp_path: Path) -> None:
    check_recipe(tmp_path, "bars")
    (tmp_path / "results.json").write_text(json.dumps({"recipe": "my set"}))
    check_recipe(tmp_path, "my set")
    with pytest.raises(
        UserError,
        match="holds the results of recipe 'my set', which a run of 'bars' would overwrite; needed: another folder, "
        "or name='my set'",
    ):
        check_recipe(tmp_path, "bars")
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UserError, match=r"results.json is not a file of cgankd run; choose another --out"):
        check_recipe(tmp_path, "bars")


@pytest.mark.parametrize("file", ["table.json", "ablation.json"])
def test_a_run_does_not_block_the_table_of_another_recipe(file: str, tmp_path: Path) -> None:
    """cgankd table and cgankd ablate refuse a folder that holds a run of another recipe."""
    (tmp_path / file).write_text(json.dumps({"recipes": ["bars", "my set"]}))
    check_recipe(tmp_path, "my set")
    with pytest.raises(UserError, match=f"holds {file} of recipe 'bars', 'my set', whose command would not go on"):
        check_recipe(tmp_path, "other")
    (tmp_path / file).write_text('{"recipes": 3}')  # not of cgankd; a run leaves it as it is
    check_recipe(tmp_path, "other")


def test_results_that_a_crash_has_cut_are_as_none_in_the_folder_of_a_run_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text('{"recipe": "ba')
    with pytest.raises(UserError, match=r"results.json is not a JSON file"):
        check_recipe(tmp_path, "bars")
    HeldFolder(tmp_path, "run").close()
    check_recipe(tmp_path, "bars")
    assert earlier(file) is None


def test_a_folder_that_was_taken_over_is_forgotten_without_comparing_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        held = HeldFolder(tmp_path, "cgankd run", take_over=True)
    errors: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    monkeypatch.setattr(PurePath, "__eq__", lambda one, other: 1 / 0)  # it fails where Python ends
    del held
    monkeypatch.undo()
    assert errors == []


@pytest.mark.parametrize(("name", "what"), [("nowhere", "does not exist"), ("file", "is a file")])
@pytest.mark.parametrize("opened", [read_status, read, FinishedRun.open, clean])
def test_a_folder_that_is_not_there_is_refused_in_the_same_words_everywhere(
    name: str, what: str, opened: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        opened(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name} {what}; needed: the --out folder of a run"


@pytest.mark.parametrize("opened", [open_model, bench])
def test_where_a_file_is_allowed_too_these_words_say_so(opened: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        opened(tmp_path / "nowhere")
    needed = "the --out folder of a run, or an .onnx file of cgankd export"
    assert str(caught.value) == f"{tmp_path / 'nowhere'} does not exist; needed: {needed}"


def test_a_run_that_has_not_finished_is_told_from_other_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no results.json; give the --out folder of a finished run$"):
        read_results(tmp_path, ())
    (tmp_path / ".lock").touch()
    with pytest.raises(UserError, match=r"of a finished run \(the command of this one goes on\)$"):
        read_results(tmp_path, ())
