"""Tables in folders (the layout of Hugging Face's imagefolder), .jsonl, and files that are broken or not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pictures import class_folders, metadata, noise, read, refuses, sizes, write_png

from cgankd.core.errors import UserError
from cgankd.tasks import Classification, Regression


def jsonl(folder: Path, rows: list[dict[str, Any]] | list[str]) -> Path:
    """``folder``/metadata.jsonl with these rows, and an image for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        if isinstance(row, dict) and "file_name" in row:
            write_png(folder / row["file_name"], 5000 + 100 * len(folder.name) + number)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


# --- tables in folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train", "val", "test"), [("train", "validation", "test"), ("Training", "valid", "Testing")])
def test_tables_in_folders_for_splits(tmp_path: Path, train: str, val: str, test: str) -> None:
    for name, count in ((train, 20), (val, 4), (test, 6)):
        metadata(tmp_path / name, [(f"{n}.png", "ab"[n % 2]) for n in range(count)])
    splits = read(tmp_path)
    assert sizes(splits) == [20, 4, 6]
    assert splits.task == Classification(("a", "b"))
    assert splits.test.labels.tolist() == [0, 1] * 3
    assert "splits are read from the names of the folders" in splits.notes


NAMED = {  # how the rows of a table name the image NUMBER in train_images/
    "by path": "train_images/a{}.png",
    "by name": "a{}.png",
    "without a suffix": "a{}",
    "by a path of Windows": r"train_images\a{}.png",
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("column", ["id", "file_name", "path"])
def test_a_table_of_any_name_is_a_source(tmp_path: Path, name: str, column: str) -> None:
    for number in range(30):
        write_png(tmp_path / "train_images" / f"a{number}.png", number)
    write_png(tmp_path / "test_images" / "b.png", 99)  # without a label
    lines = [f"{NAMED[name].format(number)};{number % 3};{number}" for number in range(30)]
    source = tmp_path / "train.tsv.csv"
    source.write_text("\n".join([f"{column};target;row", *lines]) + "\n")
    refuses("no column 'label'", source)
    splits = read(source, label_column="target")
    labels = {path.name: int(path.stem[1:]) % 3 for path in (tmp_path / "train_images").iterdir()}
    assert sum(sizes(splits)) == 30
    for file, label in zip(splits.test.files, splits.test.labels.tolist(), strict=True):
        assert labels[Path(file).name] == label
    assert "1 image file was left out: in no row of the table (test_images/)" in splits.notes
    folder = tmp_path / "same"
    shutil.copytree(tmp_path / "train_images", folder / "train_images")
    metadata(folder, [(f"train_images/a{number}.png", number % 3) for number in range(30)])
    assert read(folder).train.content_key == splits.train.content_key


def test_a_table_whose_names_fit_several_images_or_none_is_refused(tmp_path: Path) -> None:
    for number in range(12):
        for folder in ("left", "right"):
            write_png(tmp_path / folder / f"{number}.png", number)
    source = tmp_path / "labels.csv"
    source.write_text("id,label\n" + "".join(f"{number},{number % 2}\n" for number in range(12)))
    refuses("labels.csv: has no column 'file_name'; columns found: id, label", source)
    source.write_text("id,label\n" + "".join(f"left/{number},{number % 2}\n" for number in range(12)))
    refuses("labels.csv: has no column 'file_name'", source)  # a folder, but no suffix
    source.write_text("id,label\n" + "".join(f"left/{number}.png,{number % 2}\n" for number in range(12)))
    assert sum(sizes(read(source))) == 12
    source.write_text("id,label\n" + "".join(f"left/{number}.png,{number % 2}\n" for number in range(12, 24)))
    refuses("labels.csv: has no column 'file_name'", source)
    rows = [f"left/{number}.png,{number % 2}" for number in (*range(11), 77)]
    source.write_text("\n".join(["file_name,label", *rows]))
    refuses("labels.csv, line 13: file 'left/77.png' is not in", source)


def test_a_column_of_splits_with_another_name_is_asked_about(tmp_path: Path) -> None:
    rows = [(f"{n}.png", n % 2, "test" if n % 4 == 3 else "train", n) for n in range(40)]
    metadata(tmp_path, rows, ("file_name", "label", "Subset", "row"))
    refuses("column 'Subset' holds names of splits, but they are read from a column 'split'; allowed: the", tmp_path)
    splits = read(tmp_path, split_folders=False)
    assert splits.notes[0] == "columns that were not used: Subset, row"
    metadata(tmp_path, rows, ("file_name", "label", "split", "row"))
    assert sizes(read(tmp_path))[2] == 10


def test_jsonl_tables_in_folders(tmp_path: Path) -> None:
    for name, count in (("train", 20), ("test", 6)):
        jsonl(
            tmp_path / name, [{"file_name": f"{n}.png", "angle": n / 4, "objects": {"bbox": [n]}} for n in range(count)]
        )
    splits = read(tmp_path, label_column="angle")
    assert [len(splits.pool) + len(splits.val), len(splits.test)] == [20, 6]
    assert splits.test.labels.tolist() == [n / 4 for n in range(6)]
    assert isinstance(splits.task, Regression)
    refuses("metadata.jsonl: column 'objects' holds lists or objects", tmp_path, label_column="objects")


def test_a_table_at_the_top_names_files_in_folders_for_splits(tmp_path: Path) -> None:
    rows = [(f"train/{n}.png", n % 2) for n in range(20)] + [(f"test/{n}.png", n % 2) for n in range(6)]
    splits = read(metadata(tmp_path / "a", rows))
    assert [len(splits.pool) + len(splits.val), len(splits.test)] == [20, 6]
    assert "splits are read from the names of the folders" in splits.notes
    unsplit = read(tmp_path / "a", split_folders=False)
    assert len(unsplit.test) == 5
    folder = metadata(tmp_path / "b", [*rows, ("x.png", 1)])
    refuses(r"line 28: 'x.png' is not in a folder for training.*data.split_folders=false", folder)
    only_test = metadata(tmp_path / "c", [(f"test/{n}.png", n % 2) for n in range(20)])
    refuses("'test/0.png' is not in a folder for training", only_test)


def test_the_column_split_beats_folders_and_takes_any_usual_word(tmp_path: Path) -> None:
    words = ["Training"] * 12 + ["Valid"] * 3 + ["Test-Set"] * 5
    rows = [(f"test/{n}.png", n % 2, word) for n, word in enumerate(words)]
    assert sizes(read(metadata(tmp_path, rows, ("file_name", "label", "split")))) == [12, 3, 5]


def test_tables_in_folders_that_name_no_split(tmp_path: Path) -> None:
    for name in ("north", "south"):
        metadata(tmp_path / name, [(f"{n}.png", n % 3) for n in range(15)])
    splits = read(tmp_path)
    assert len(splits.pool) + len(splits.val) + len(splits.test) == 30
    assert "the source has no test split, so 6 images were drawn for it" in splits.notes


def test_tables_that_are_not_alike(tmp_path: Path) -> None:
    metadata(tmp_path / "a" / "train", [(f"{n}.png", n % 2) for n in range(20)])
    metadata(tmp_path / "a" / "test", [(f"{n}.png", n % 2) for n in range(4)], ("file_name", "class"))
    refuses("test/metadata.csv: has no column 'label'.*columns found: file_name, class", tmp_path / "a")
    metadata(tmp_path / "b" / "train", [(f"{n}.png", n % 2) for n in range(20)])
    jsonl(tmp_path / "b" / "test", [{"file_name": "x.png", "label": 1}])
    refuses("has tables of several kinds; allowed: all of one kind", tmp_path / "b")
    jsonl(tmp_path / "b" / "train", [{"file_name": "x.png", "label": 1}])
    refuses("train: has metadata.csv and metadata.jsonl; allowed: only one of them", tmp_path / "b")
    class_folders(tmp_path / "c", {"a": 10, "b": 10})
    (tmp_path / "c" / "b" / "metadata.csv").write_text("camera,lens\nx,y\n")
    refuses("b/metadata.csv: has no column 'file_name'; columns found: camera, lens", tmp_path / "c")


def test_what_a_table_leaves_out_is_told(tmp_path: Path) -> None:
    folder = metadata(tmp_path, [(f"{n}.png", n % 2) for n in range(20)])
    metadata(folder / "more", [("x.png", 1)])
    write_png(folder / "y.png", 1)
    splits = read(folder)
    assert "2 image files were left out: in no row of the table (more/, ./)" in splits.notes
    assert f"tables in more were not read, because {folder} has its own" in splits.notes


def test_rows_that_repeat_others_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [(f"{n}.png", n % 2) for n in range(20)]
    splits = read(metadata(tmp_path, [*rows, *rows[3:5], rows[3]]))
    assert sum(sizes(splits)) == 20
    assert "3 rows were left out: the same as an earlier row of metadata.csv in every column" in splits.notes
    metadata(tmp_path, [*rows, rows[3], ("4.png", 1), ("5.png", 0)])
    refuses(
        r"metadata.csv: 2 files are named twice, by rows that differ: '4.png' \(lines 6 and 23\), '5.png' \(lines 7",
        tmp_path,
    )


def test_litter_in_a_table_is_left_out_and_told(tmp_path: Path) -> None:
    rows = [(f"{n}.png", n % 2) for n in range(20)] + [("@eaDir/0.png/THUMB_M.png", 1), ("._0.png", 1)]
    splits = read(metadata(tmp_path, rows))
    assert len(splits.pool) + len(splits.val) + len(splits.test) == 20
    assert "2 rows were left out: for system files, such as @eaDir/" in splits.notes


def test_names_as_other_systems_write_them(tmp_path: Path) -> None:
    for number in range(20):
        write_png(tmp_path / "in" / f"e\u0301{number}.png", number)  # as macOS writes é
    rows = [f"in\\\u00e9{number}.png,{number % 2}" for number in range(20)]  # Windows' slash, é as others write it
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "\n".join(rows), encoding="utf-8")
    splits = read(tmp_path)
    assert len(splits.pool) + len(splits.val) + len(splits.test) == 20
    assert not any("no row" in note for note in splits.notes)


# --- .jsonl -------------------------------------------------------------------------------------------------------


def test_numbers_in_jsonl_keep_their_text(tmp_path: Path) -> None:
    lines = [f'{{"file_name": "{n}.png", "label": {["1.50", "1e1", "2"][n % 3]}}}' for n in range(30)]
    folder = jsonl(tmp_path, lines)
    for number in range(30):
        write_png(folder / f"{number}.png", number)
    splits = read(folder)
    assert splits.task == Regression(1.5, 10.0)
    assert read(folder, task="classification").task == Classification(("1.50", "1e1", "2"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not readable as JSON: Expecting property name"),
        ("[1]", "line 1: is not a JSON object; allowed: lines such as"),
        ('{"file_name": "gone.png", "label": 1}', "line 1: file 'gone.png' is not in"),
        ('{"label": 1}', "metadata.jsonl: has no column 'file_name'; columns found: label"),
        ('{"file_name": "0.png"}', "has no column 'label'"),
        ('{"file_name": "0.png", "label": null}', "line 1: the label is empty"),
        ('{"file_name": "0.png", "label": NaN}\n{"file_name": "1.png", "label": 1.5}', "line 1: label NaN is not"),
        ("", "metadata.jsonl: is empty"),
        ('{"file_name": "../0.png", "label": 1}', "line 1: '../0.png' is outside the folder"),
    ],
)
def test_jsonl_that_can_not_be_used(tmp_path: Path, line: str, message: str) -> None:
    for number in range(2):
        write_png(tmp_path / f"{number}.png", number)
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    refuses(message, tmp_path)


# --- several files that are broken, not there, or held ------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def test_all_broken_images_are_named_at_once(tmp_path: Path) -> None:
    folder = metadata(tmp_path / "a", [(f"{n:02}.png", n % 2) for n in range(60)])
    for number in (3, 11, 30, 31, 59):
        truncate(folder / f"{number:02}.png")
    (folder / "40.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"^6 of 60 images can't be used: ") as caught:
        read(folder)
    said = str(caught.value)
    assert [f"{n:02}.png (" in said for n in (3, 11, 30, 31, 40, 59)] == [True] * 6
    assert "truncated" in said
    assert "cannot identify image file" in said
    assert said.count("allowed: complete PNG") == 1


def test_truncated_images_of_all_splits_are_named_at_once(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 10, "b": 10})
    class_folders(tmp_path / "test", {"a": 5, "b": 5}, seed=90)
    for name in ("train/a/003.png", "test/b/001.png"):
        truncate(tmp_path / name)
    with pytest.raises(UserError, match=r"^2 of 30 .*test/b/001.png \(.*train/a/003.png \("):
        read(tmp_path)


def test_of_many_broken_images_twenty_are_named(tmp_path: Path) -> None:
    folder = metadata(tmp_path, [(f"{n:02}.png", n % 2) for n in range(60)])
    for number in range(50):
        truncate(folder / f"{number:02}.png")
    with pytest.raises(UserError, match=r"^50 of 60 images .*/19.png \([^()]*\([^()]*\)\) and 30 more; allowed"):
        read(folder)


def test_a_single_broken_image_is_named_as_ever(tmp_path: Path) -> None:
    folder = metadata(tmp_path, [(f"{n:02}.png", n % 2) for n in range(20)])
    truncate(folder / "07.png")
    with pytest.raises(UserError, match=r"/07.png: not readable as an image \(.*truncated.*\); allowed: complete PNG"):
        read(folder)


def test_all_files_that_are_not_there_are_named_at_once(tmp_path: Path) -> None:
    folder = metadata(tmp_path, [(f"{n:02}.png", n % 2) for n in range(60)])
    for number in (5, 7):
        (folder / f"{number:02}.png").unlink()
    refuses(r"metadata.csv: 2 of 60 files are not in .*: '05.png' \(line 7\), '07.png' \(line 9\); --skip-bad", folder)
    for number in range(10, 50):
        (folder / f"{number:02}.png").unlink()
    refuses(r"42 of 60 files .*'27.png' \(line 29\) and 22 more; --skip-bad", folder)


def test_a_file_that_another_program_holds(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    with h5py.File(path, "w", locking=True) as file:
        file["images"], file["labels"] = np.stack([noise(n) for n in range(20)]), np.arange(20) % 2
        file.flush()
        refuses(r"set.h5: not readable as HDF5: ", path)
    hold = "import sys, h5py; file = h5py.File(sys.argv[1], 'r+', locking=True); print('held', flush=True); input()"
    words = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refuses("Resource temporarily unavailable, because another program has the file open", path)
        other.communicate("\n")
    assert torch.bincount(read(path).test.labels).tolist() == [2, 2]


def test_the_systems_reason_for_files_that_can_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    refuses("a.h5: not readable as HDF5: file signature not found$", tmp_path / "a.h5")
