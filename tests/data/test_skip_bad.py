"""data.skip_bad: what can't be read is left out and listed; everything else is as if it had never been there."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import bad_arrays
import bad_images
import bad_parquet
import bad_tables
import numpy as np
import pytest
from bad_inputs import every_image, good_folders, good_png, total
from PIL import Image

from cgankd.cli import main
from cgankd.config import recipe
from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, read_json
from cgankd.data.imageset import Splits
from cgankd.data.listing import Rejected
from cgankd.data.rejected import WHERE, write_rejected
from cgankd.data.sources import load
from cgankd.pipeline.run import run

BROKEN = {name: case for name, case in bad_images.broken().items() if "b/x." in case.refused and " cut at 70%" in name}


def read(source: Path, **settings: object) -> Splits:
    return load(DataSettings.model_validate({"source": str(source), "skip_bad": True, **settings}))


def spoilt(folder: Path) -> Path:
    """Twenty good images and four that can't be read."""
    good_folders(folder)
    (folder / "a" / "cut.png").write_bytes(good_png(900)[:300])
    (folder / "a" / "empty.jpg").write_bytes(b"")
    (folder / "b" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "b" / "pipe.png")
    return folder


def test_bad_images_are_left_out_and_listed_with_their_reasons(tmp_path: Path) -> None:
    splits = read(spoilt(tmp_path / "spoilt"))
    good = load(DataSettings(source=str(good_folders(tmp_path / "good"))))
    assert splits.train.content_key == good.train.content_key
    assert splits.test.content_key == good.test.content_key
    reasons = {Path(path).name: reason for path, reason in splits.rejected}
    assert set(reasons) == {"cut.png", "empty.jpg", "gone.png", "pipe.png"}
    assert "truncated" in reasons["cut.png"]
    assert reasons["empty.jpg"] == "not readable as an image (cannot identify image file)"
    assert reasons["gone.png"] == "is a link to a missing file"
    assert reasons["pipe.png"] == "is a pipe or a device"
    assert f"4 of 24 images can't be read and were left out{WHERE}" in splits.notes
    assert good.rejected == ()


def test_without_bad_images_nothing_changes(tmp_path: Path) -> None:
    folder = good_folders(tmp_path)
    splits = read(folder)
    assert splits.rejected == ()
    assert splits.notes == load(DataSettings(source=str(folder))).notes


@pytest.mark.parametrize("name", BROKEN)
def test_every_kind_of_cut_image(name: str, tmp_path: Path) -> None:
    splits = read(BROKEN[name].make(tmp_path), size=16)
    assert total(splits) == 20
    assert [Path(path).stem for path, _ in splits.rejected] == ["x"]


@pytest.mark.parametrize("name", ["c", "7"])
def test_a_class_of_which_nothing_is_left_is_told(name: str, tmp_path: Path) -> None:
    good_folders(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "x.png").write_bytes(b"")
    splits = read(tmp_path)
    assert splits.task.answer_names == ("a", "b")
    assert f"no image is left of class {name}" in splits.notes


def test_rows_of_a_table_whose_files_are_missing(tmp_path: Path) -> None:
    bad_tables.one_row("gone.png,1")(tmp_path)
    (tmp_path / "4.png").write_bytes(b"")
    splits = read(tmp_path)
    assert total(splits) == 19
    assert sorted(Path(path).name for path, _ in splits.rejected) == ["4.png", "gone.png"]
    assert {reason for path, reason in splits.rejected if "gone" in path} == {"the file is missing"}
    assert f"1 of 21 images could not be found and was left out{WHERE}" in splits.notes
    bad_tables.one_row("../x.png,1")(tmp_path)
    with pytest.raises(UserError, match="is outside the folder"):
        read(tmp_path)


def test_rows_of_scalars_with_a_decimal_comma_are_no_classes(tmp_path: Path) -> None:
    lines = ["file_name;label", *(f"{n}.png;{n},5" for n in range(20)), "gone.png;99,5", "x.png;", "y.png;"]
    bad_tables.table("\n".join(lines))(tmp_path)
    for name in ("x.png", "y.png"):
        (tmp_path / name).write_bytes(good_png(99))
    splits = read(tmp_path)
    assert not any("no image is left" in note for note in splits.notes)
    place, empty = f"{tmp_path}/metadata.csv, line", "the label is empty"
    assert splits.rejected == (
        Rejected(f"{tmp_path}/gone.png", "the file is missing"),
        Rejected(f"{place} 23", empty),
        Rejected(f"{place} 24", empty),
    )
    assert f"2 of 23 images came without a label and were left out{WHERE}" in splits.notes
    hint = f"students can learn from images without a label too: data.unlabelled={tmp_path}"
    assert hint in splits.notes


def test_a_table_without_any_label_is_refused(tmp_path: Path) -> None:
    bad_tables.table("file_name,label\n" + "".join(f"{n}.png,\n" for n in range(20)))(tmp_path)
    with pytest.raises(UserError, match=r"metadata.csv, lines 2, 3, 4, 5, 6 and 15 more: the label is empty"):
        read(tmp_path)


@pytest.mark.skipif(bad_parquet.pa is None, reason="needs pyarrow")
def test_rows_of_a_parquet_file(tmp_path: Path) -> None:
    images = [{"bytes": good_png(n), "path": None} for n in range(23)] + [{"bytes": b"no", "path": None}]
    path = bad_parquet.column("image", images)(tmp_path)
    splits = read(path)
    assert len(every_image(splits)) == 23
    assert splits.rejected == (Rejected(f"{path}, row 23", "not readable as an image (cannot identify image file)"),)


def test_groups_of_the_images_that_are_left(tmp_path: Path) -> None:
    for number in range(40):
        path = tmp_path / "ab"[number % 2] / f"t{number // 4}_{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(good_png(number) if number not in (3, 17) else b"")
    splits = read(tmp_path, group_pattern=r"(t\d+)_")
    groups = [set(part.columns["group"].tolist()) for part in (splits.pool, splits.val, splits.test)]
    assert total(splits) == 38
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10


def test_where_nothing_can_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.skip_bad=True is for image files, not for .*set.npz"):
        read(bad_arrays.npz()(tmp_path))
    folder = good_folders(tmp_path / "f")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="20 of 20 images can't be used"):
        read(folder)


def test_the_file_of_rejected_images(tmp_path: Path) -> None:
    rows = [Rejected('a,"b"\nc.png', "cut"), Rejected(os.fsdecode(b"\xff.png"), "empty"), Rejected("猫.png", "x")]
    write_rejected(rows, tmp_path)
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        read_back = list(csv.reader(stream))
    assert read_back == [["path", "reason"], ['a,"b"\nc.png', "cut"], ["\\udcff.png", "empty"], ["猫.png", "x"]]
    write_rejected([], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cgankd", "data", "set", "--skip-bad"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "4 of 24 images can't be read and were left out\n" in out
    assert "wrote rejected.csv: 4 images" in out
    lines = (tmp_path / "rejected.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "path,reason"
    assert len(lines) == 5
    assert lines[3] == "set/b/gone.png,is a link to a missing file"


def test_a_run_lists_them_in_its_folder(tmp_path: Path) -> None:
    good_folders(tmp_path / "set", each=30)
    (tmp_path / "set" / "a" / "x.png").write_bytes(b"")
    fit = {"network": "cnn8", "fit": {"steps": 1}}
    tree = {
        "data": {"source": str(tmp_path / "set"), "val_size": 10, "skip_bad": True},
        "seeds": [0], "teacher": fit, "student": fit, "compare": {"methods": ["nokd"]},
    }  # fmt: skip
    record = run(recipe.from_tree(tree), tmp_path / "run")
    lines = (tmp_path / "run" / "rejected.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == [f"{tmp_path}/set/a/x.png,not readable as an image (cannot identify image file)"]
    assert f"1 of 61 images can't be read and was left out{WHERE}" in record["notes"]


def test_a_page_names_the_files_of_the_worst_test_images(tmp_path: Path) -> None:
    good_folders(tmp_path / "a&b", each=30)
    fit = {"network": "cnn8", "fit": {"steps": 1}}
    data = {"source": str(tmp_path / "a&b"), "val_size": 10}
    tree = {"data": data, "seeds": [0], "teacher": fit, "student": fit, "compare": {"methods": ["nokd"]}}
    record = run(recipe.from_tree(tree), tmp_path / "run")
    folder = tmp_path / "run" / record["artifacts"]["worst"]
    names, images = (
        read_json(folder / "artifact.json")["summary"]["files"],
        load_tensors(folder / "worst.safetensors")[0],
    )
    for name, image in zip(names, images["images"], strict=True):
        assert np.array_equal(np.array(Image.open(tmp_path / "a&b" / name)).transpose(2, 0, 1), image)
