"""A folder per class, and a folder with metadata.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import class_folders, metadata, noise, read, refuses, write_png

from cgankd.config.recipe import from_tree
from cgankd.core.errors import UserError
from cgankd.data.imageset import Splits
from cgankd.tasks import Classification, Regression


def all_labels(splits: Splits) -> torch.Tensor:
    return torch.cat([splits.pool.labels, splits.val.labels, splits.test.labels])


# A folder per class


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    splits = read(class_folders(tmp_path / "pets", {"dog": 20, "cat": 30, "10": 10}))
    assert splits.name == "pets"
    assert splits.task == Classification(("10", "cat", "dog"))
    assert torch.bincount(all_labels(splits)).tolist() == [10, 30, 20]
    assert torch.bincount(splits.test.labels).tolist() == [2, 6, 4]
    assert "labels were read as 3 classes (names of folders)" in splits.notes


def test_pixels_and_labels_belong_together(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 10, "b": 10})  # seeds 1 to 20
    splits = read(tmp_path)
    for part in (splits.pool, splits.val, splits.test):
        for image, label in zip(part.images.numpy(), part.labels.tolist(), strict=True):
            seeds = [n for n in range(1, 21) if np.array_equal(noise(n), image.transpose(1, 2, 0))]
            assert len(seeds) == 1
            assert label == (seeds[0] > 10)


def test_train_val_and_test_folders_are_honoured(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 8, "b": 9})
    class_folders(tmp_path / "val", {"a": 2, "b": 2}, seed=100)
    class_folders(tmp_path / "test", {"a": 3, "b": 4}, seed=200)
    splits = read(tmp_path)
    assert [len(part) for part in (splits.train, splits.pool, splits.val, splits.test)] == [17, 17, 4, 7]
    assert splits.pool is splits.train


def test_numbered_folders_may_be_scalars(tmp_path: Path) -> None:
    class_folders(tmp_path, {"1.5": 10, "30": 10, "-2": 10})
    splits = read(tmp_path, task="regression", unit="m")
    assert splits.task == Regression(-2.0, 30.0, "m")
    assert sorted(set(all_labels(splits).tolist())) == [-2.0, 1.5, 30.0]


def test_what_is_not_an_image_or_hidden_is_passed_over(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 10, "b": 10})
    write_png(tmp_path / "a" / "deeper" / "one.PNG", 99)
    write_png(tmp_path / "a" / ".hidden.png", 98)
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    splits = read(tmp_path)
    assert len(all_labels(splits)) == 21
    assert "1 file that is no image was left out" in splits.notes


def test_folders_that_can_not_be_used(tmp_path: Path) -> None:
    refuses("'.*nowhere' does not exist; allowed: a folder, a .csv", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refuses("empty: has neither a metadata.csv nor a folder per class", tmp_path / "empty")
    write_png(tmp_path / "loose" / "a.png", 1)
    refuses("loose: has 1 image, but neither", tmp_path / "loose")
    class_folders(tmp_path / "one", {"a": 20})
    refuses("one: 1 distinct training label; at least two", tmp_path / "one")
    class_folders(tmp_path / "hollow", {"a": 20})
    (tmp_path / "hollow" / "b").mkdir()
    refuses("hollow/b: the class has no images", tmp_path / "hollow")
    class_folders(tmp_path / "few", {"a": 4, "b": 5})
    refuses("few: has 9 training images; at least 10", tmp_path / "few")
    class_folders(tmp_path / "columns", {"a": 10, "b": 10})
    refuses("data.group_column='person'.*has no metadata.csv", tmp_path / "columns", group_column="person")
    refuses("data.label_range is set, but labels were read as classes", tmp_path / "columns", label_range=(0, 1))
    refuses("a/000.png: label 'a' is not a number", tmp_path / "columns", task="regression")


def test_split_folders_that_can_not_be_used(tmp_path: Path) -> None:
    class_folders(tmp_path / "new" / "train", {"a": 10, "b": 10})
    class_folders(tmp_path / "new" / "test", {"a": 1, "c": 1})
    refuses("new/test/c/000.png: class 'c' has no training image", tmp_path / "new")
    class_folders(tmp_path / "stray" / "train", {"a": 10, "b": 10})
    (tmp_path / "stray" / "tests").mkdir()
    refuses("stray/tests: is beside train/; allowed there: train, val", tmp_path / "stray")
    class_folders(tmp_path / "flat" / "train", {"a": 10, "b": 10})
    write_png(tmp_path / "flat" / "test" / "a.png", 1)
    refuses("flat/test: has no folder per class", tmp_path / "flat")


# metadata.csv


def test_words_are_classes_and_decimals_are_scalars(tmp_path: Path) -> None:
    words = read(metadata(tmp_path / "w", [(f"{n}.png", "ab"[n % 2]) for n in range(20)]))
    assert words.task == Classification(("a", "b"))
    decimals = read(metadata(tmp_path / "d", [(f"{n}.png", n / 2 - 3) for n in range(20)]), unit="cm")
    assert decimals.task.unit == "cm"  # type: ignore[attr-defined]
    assert sorted(all_labels(decimals).tolist()) == [n / 2 - 3 for n in range(20)]
    assert "labels were read as scalars (decimals)" in decimals.notes


def test_whole_numbers_are_classes_in_number_order_unless_told(tmp_path: Path) -> None:
    folder = metadata(tmp_path, [(f"{n}.png", [2, 10, 7][n % 3]) for n in range(30)])
    splits = read(folder)
    assert splits.task == Classification(("2", "7", "10"))
    assert "labels were read as 3 classes (whole numbers); data.task=regression reads them as scalars" in splits.notes
    assert read(folder, task="regression").task == Regression(2.0, 10.0)


def test_columns_by_other_names_and_a_split(tmp_path: Path) -> None:
    rows = [(f"d/{n}.png", n % 4, n * 0.25, word) for n, word in enumerate(["train"] * 16 + ["VAL"] * 3 + ["test"] * 5)]
    folder = metadata(tmp_path, rows, ("file_name", "drive", "angle", "split"))
    splits = read(folder, label_column="angle", label_range=(0, 10))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [16, 3, 5]
    assert splits.test.labels.tolist() == [n * 0.25 for n in range(19, 24)]
    assert splits.task == Regression(0.0, 10.0)
    grouped = read(folder, label_column="angle", group_column="drive")
    assert set(grouped.train.columns["group"].tolist()) == {0, 1, 2, 3}
    assert any("4 groups are in both train and test" in note for note in grouped.notes)
    outside = "8 validation or test labels are outside the training range 0 to 3.75; predictions stay inside it"
    assert outside in grouped.notes


def test_groups_of_a_table_stay_whole(tmp_path: Path) -> None:
    rows = [(f"{n}.png", n / 60, f"person {n // 5}") for n in range(60)]
    folder = metadata(tmp_path, rows, ("file_name", "label", "person"))
    for seed in range(4):
        splits = read(folder, group_column="person", seed=seed)
        groups = [set(part.columns["group"].tolist()) for part in (splits.pool, splits.val, splits.test)]
        assert sum(map(len, groups)) == 12
        assert len(set.union(*groups)) == 12


ROWS = [(f"{n}.png", n / 2) for n in range(20)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("0.png", 3.5), r"metadata.csv: 1 file is named twice, by rows that differ: '0.png' \(lines 2 and 22\); "),
        (("x.png", "nan"), r"metadata.csv, line 22: label nan is not finite; allowed: finite numbers"),
        (("x.png", "-inf"), r"line 22: label -inf is not finite"),
        (("x.png", "1e60"), r"line 22: label 1e\+60 is not finite in float32"),
        (
            ("x.png", "soon"),
            r"line 22: label 'soon' is not a number; allowed: plain numbers such as 1234.5, or data.task=class",
        ),
        (("x.png", " "), r"line 22: the label is empty"),
        (("x.png", 10.5), r"line 22: label 10.5 is outside data.label_range, 0 to 10"),
        (("x.png",), r"line 22: has 1 field; the header has 2"),
    ],
)
def test_rows_that_can_not_be_used(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    refuses(message, metadata(tmp_path, [*ROWS, row]), label_range=(0, 10))


def test_empty_labels_are_counted_and_the_error_says_how_to_go_on(tmp_path: Path) -> None:
    folder = metadata(tmp_path, [*ROWS, ("x.png", ""), ("y.png", 1.5), ("z.png", " ")])
    hint = r"remove entries without a label \(data.unlabelled=FOLDER uses such images\)"
    message = rf"lines 22 and 24: the label is empty; .*; {hint}; --skip-bad .* goes on without$"
    refuses(message, folder)
    assert [path for path, _ in read(folder, skip_bad=True).rejected] == [
        f"{folder}/metadata.csv, line {line}" for line in (22, 24)
    ]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..\\secret.png", "C:\\a.png"])
def test_names_that_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    write_png(tmp_path / "secret.png", 1)
    folder = metadata(tmp_path / "in", ROWS)
    with (folder / "metadata.csv").open("a") as stream:
        stream.write(f"{name},0.5\n")
    refuses("line 22: .* is outside the folder; allowed: paths inside", folder)


def test_a_name_that_comes_back_into_the_folder_is_fine(tmp_path: Path) -> None:
    folder = metadata(tmp_path, [*ROWS, ("sub/x.png", 1.5)])
    text = (folder / "metadata.csv").read_text().replace("sub/x.png", "sub/../sub/x.png")
    (folder / "metadata.csv").write_text(text)
    assert len(all_labels(read(folder))) == 21


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "metadata.csv: is empty; the first line names the columns"),
        ("file_name,label\n", "metadata.csv: has no rows"),
        (
            "file_name,angle\na.png,1\n",
            "has no column 'label' .data.label_column sets another.; .*file_name, angle",
        ),
        (
            "\ufeffname;reading (bar)\na.png;8,61\n",
            r"metadata.csv: has no .*; columns found: name, reading .bar.; give .* this name, instead of 'name'$",
        ),
        (
            "file;reading, bar\nb.png;8,61\n",
            r"; columns found: file, reading, bar; give .* this name, instead of 'file'$",
        ),
        ("path,label\nb.png,1\na.png,2\n", "has no column 'file_name'; .* instead of 'path'$"),
        ("file,path,label\na.png,a.png,1\n", "has no column 'file_name'; .* instead of 'file', 'path'$"),
        ("file_name,label,label\na.png,1,2\n", "column 'label' is 2 times in the header"),
        ("file_name,label\ngone.png,1\n", "line 2: file 'gone.png' is not in"),
        ("file_name,label\n,1\n", "line 2: file '' is not in"),
        ("file_name,label,split\na.png,1,trian\n", "line 2: split 'trian' is not known; allowed: train, val"),
        ('file_name,label\n"a.png,1\n', "metadata.csv, line 2: not readable as CSV"),
        ("file_name|label\na.png|1\n", r"columns found: file_name\|label"),
        (b"file_name,label\n\xff.png,1\n", "byte 16 is not UTF-8"),
    ],
)
def test_tables_that_can_not_be_used(tmp_path: Path, content: str | bytes, message: str) -> None:
    write_png(tmp_path / "a.png", 1)
    (tmp_path / "metadata.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    refuses(message, tmp_path)


def test_further_refusals_of_a_table(tmp_path: Path) -> None:
    folder = metadata(tmp_path / "a", ROWS)
    refuses("has no column 'brix', which data.label_column names; columns found", folder, label_column="brix")
    refuses("has no column 'drive', which data.group_column names; columns found", folder, group_column="drive")
    refuses("label_range is 5 to 5; allowed: two finite numbers", folder, label_range=(5, 5))
    with pytest.raises(UserError, match=r"data\.label_range\.1 = inf is not allowed"):
        from_tree({"data": {"source": str(folder), "label_range": [0, float("inf")]}})
    refuses("line 2: label 0 is outside data.label_range, 1 to 20", folder, label_range=(1, 20))
    same = metadata(tmp_path / "b", [(f"{n}.png", 0.5) for n in range(20)])
    refuses("every training label is 0.5; at least two distinct", same)
    rows = [(f"{n}.png", n / 2, "" if n == 7 else "x") for n in range(20)]
    refuses("line 9: 'who' is empty", metadata(tmp_path / "c", rows, ("file_name", "label", "who")), group_column="who")


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    folder = metadata(tmp_path, ROWS)
    text = (folder / "metadata.csv").read_text()
    (folder / "metadata.csv").write_bytes(("\ufeff" + text.replace("\n", "\r\n") + "\r\n").encode())
    assert len(all_labels(read(folder))) == 20


@pytest.mark.parametrize(("name", "delimiter"), [("file", ";"), ("Filename", "\t"), ("image_path", ",")])
def test_a_column_with_another_usual_name_names_the_files(name: str, delimiter: str, tmp_path: Path) -> None:
    folder = metadata(tmp_path, ROWS)
    text = (folder / "metadata.csv").read_text().replace("file_name", name).replace(",", delimiter)
    (folder / "metadata.csv").write_text(text)
    splits = read(folder)
    assert len(all_labels(splits)) == 20
    assert f"the column {name!r} of metadata.csv was read as 'file_name', because it names files" in splits.notes


def test_classes_of_one_image_each_leave_none_to_validate_on(tmp_path: Path) -> None:
    refuses("no image is left for (validation|test)", class_folders(tmp_path, {f"c{n}": 1 for n in range(12)}))
