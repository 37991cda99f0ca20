"""Labels that only look like numbers, numbers in other forms, and large numbers."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import class_folders, metadata, noise, read, write_png

from cgankd.core.errors import UserError
from cgankd.data.imageset import Splits
from cgankd.data.sources import load_whole
from cgankd.tasks import Classification, Regression


def labelled(folder: Path, labels: Sequence[str], count: int = 40) -> Path:
    """A table of ``count`` images whose labels come in turn."""
    return metadata(folder, [(f"{n}.png", labels[n % len(labels)]) for n in range(count)])


def all_labels(splits: Splits) -> list[float]:
    return torch.cat([splits.pool.labels, splits.val.labels, splits.test.labels]).tolist()


# --- text that only looks like a number ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("0_9", "10_19", "20_29", "30_39"),
        ("007", "7"),
        ("+1", "-1"),
        ("-0", "0"),
        ("0", "０"),
        ("01", "02", "10"),
        ("10-19", "20-29"),
        ("1/2", "3/4"),
        ("1.2.3", "1.2.4"),
        ("1_000", "2_000"),
        ("12:30", "13:00"),
        ("0x1F", "0x2F"),
        ("2024-05-01", "2024-05-02"),
        ("10 000", "20 000"),
    ],
)
def test_what_is_no_plain_number_is_a_class_by_its_text(tmp_path: Path, names: tuple[str, ...]) -> None:
    splits = read(labelled(tmp_path, names))
    assert splits.task == Classification(tuple(sorted(names)))
    counts = torch.bincount(torch.tensor(all_labels(splits))).tolist()
    assert counts == [len(range(names.index(name), 40, len(names))) for name in sorted(names)]


def test_classes_that_look_alike_are_told(tmp_path: Path) -> None:
    splits = read(labelled(tmp_path / "a", ("007", "7", "8")))
    assert "classes whose names look alike were not merged: '007' and '7'" in splits.notes
    splits = read(labelled(tmp_path / "b", ("Cat", "cat", "０", "0")))
    assert "classes whose names look alike were not merged: '0' and '０', 'Cat' and 'cat'" in splits.notes
    splits = read(labelled(tmp_path / "c", ("0", "1", "2")))
    assert not any("look alike" in note for note in splits.notes)


def test_two_spellings_of_one_letter_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    splits = read(labelled(tmp_path / "t", (composed, decomposed, "bar")))
    assert splits.task == Classification(("bar", composed))
    class_folders(tmp_path / "f" / "train", {composed: 10, "bar": 10})
    class_folders(tmp_path / "f" / "test", {decomposed: 3, "bar": 3}, seed=100)
    splits = read(tmp_path / "f")
    assert splits.test.labels.tolist().count(1) == 3


@pytest.mark.parametrize("text", ["nan", "NA", "None", "null", "N/A"])
def test_words_for_a_missing_label_among_words_are_told(tmp_path: Path, text: str) -> None:
    splits = read(labelled(tmp_path, ("cat", "dog", text, "cow")))
    assert text in splits.task.class_names  # type: ignore[attr-defined]
    assert f"10 labels are {text!r}, which is read as a class; remove these rows if their label is missing" in (
        splits.notes
    )


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity"])
@pytest.mark.parametrize("other", ["1.5", "2"])
def test_words_for_no_number_among_numbers_are_refused(tmp_path: Path, text: str, other: str) -> None:
    with pytest.raises(UserError, match=rf"line 3: label {text} is not finite; allowed: finite numbers"):
        read(labelled(tmp_path, (other, text)))


def test_words_among_decimals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 3: label 'NA' is not a number; allowed: plain numbers .* or data.task"):
        read(labelled(tmp_path, ("1.5", "NA", "2.5")))


@pytest.mark.parametrize("text", ["0_9", "１.５", "1,5,0", "1e", "١.٥"])
def test_a_regression_takes_plain_numbers_alone(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=f"line 3: label '{text}' is not a number"):
        read(labelled(tmp_path, ("1.5", text, "2.5")), task="regression")


def test_numbers_as_a_person_or_a_program_writes_them(tmp_path: Path) -> None:
    texts = ("1e3", "-1.5E-2", ".5", "7.", "+2.25", "007.5", "4")
    splits = read(labelled(tmp_path, texts, 70))
    assert isinstance(splits.task, Regression)
    assert sorted(set(all_labels(splits))) == sorted({float(np.float32(float(text))) for text in texts})


def test_padded_numbers_are_numbers_where_the_task_says_so(tmp_path: Path) -> None:
    splits = read(labelled(tmp_path, ("007", "7", "012")), task="regression")
    assert splits.task == Regression(7.0, 12.0)
    assert set(all_labels(splits)) == {7.0, 12.0}


def test_ready_images_of_class_007_are_not_those_of_class_7(tmp_path: Path) -> None:
    task = Classification(("007", "7"))
    folder = labelled(tmp_path, ("007", "7"))
    found = load_whole(str(folder), task, 3, (16, 16), "generator.source")
    assert found.labels.tolist() == [0, 1] * 20


# --- numbers in other forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_decimal_comma_is_read_and_told(tmp_path: Path, delimiter: str) -> None:
    folder = labelled(tmp_path, ("3,5", "-0,25", "10"), 30)
    rows = [f"{n}.png{delimiter}" + '"{}"'.format(("3,5", "-0,25", "10")[n % 3]) for n in range(30)]
    (folder / "metadata.csv").write_text(f"file_name{delimiter}label\n" + "\n".join(rows))
    splits = read(folder)
    assert splits.task == Regression(-0.25, 10.0)
    assert set(all_labels(splits)) == {3.5, -0.25, 10.0}
    assert "the comma in labels was read as a decimal point (3,5 is 3.5)" in splits.notes
    told = {",": False, ";": "semicolons", "\t": "tabs"}[delimiter]
    assert (f"fields of metadata.csv were separated at {told}" in splits.notes) == bool(told)
    assert read(folder, task="classification").task == Classification(("-0,25", "10", "3,5"))


@pytest.mark.parametrize(("mark", "name"), [(",", "comma"), (";", "semicolon"), ("\t", "tab")])
def test_a_delimiter_without_quotes_is_refused_with_the_reason(tmp_path: Path, mark: str, name: str) -> None:
    folder = labelled(tmp_path, ("1", "2"))
    (folder / "metadata.csv").write_text(f"file_name{mark}label\n0.png{mark}3{mark}5\n")
    with pytest.raises(UserError, match=rf"line 2: has 3 fields; the header has 2; a field with a {name} .* quotes"):
        read(folder)


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (("1,500", "2,000"), "the comma may separate thousands or decimals"),
        (("1.234,5", "2.345,5"), "numbers in a form that is not read"),
        (("1,234.5", "2,345.5"), "numbers in a form that is not read"),
        (("1 234.5", "20"), "numbers in a form that is not read"),
        (("1'234.5", "2'345.5"), "numbers in a form that is not read"),
        (("１.５", "２.５"), "numbers in a form that is not read"),
        (("−1.5", "2.5"), "numbers in a form that is not read"),
    ],
)  # fmt: skip
def test_decimals_that_could_be_read_in_two_ways_are_asked_about(
    tmp_path: Path, texts: tuple[str, ...], why: str
) -> None:
    folder = labelled(tmp_path, texts)
    with pytest.raises(
        UserError,
        match=rf"line 2: labels such as .{texts[0]}. may be numbers or names \({why}\); allowed: plain numbers",
    ):
        read(folder)
    with pytest.raises(UserError, match=rf"line 2: label .{texts[0]}. is not a number"):
        read(folder, task="regression")
    assert read(folder, task="classification").task == Classification(tuple(sorted(texts)))


@pytest.mark.parametrize(
    ("texts", "unit"), [(("12.5 mm", "3 mm"), "mm"), (("1.5°", "-2°"), "°"), (("0.5%", "7.5%"), "%")]
)
def test_a_unit_behind_decimals_is_asked_about_and_read(tmp_path: Path, texts: tuple[str, ...], unit: str) -> None:
    folder = labelled(tmp_path, texts)
    with pytest.raises(
        UserError, match=rf"labels such as '{texts[0]}' may be .* unit '{unit}'\); allowed: data.task=regression"
    ):
        read(folder)
    splits = read(folder, task="regression")
    numbers = sorted(float(text.removesuffix(unit)) for text in texts)
    assert splits.task == Regression(numbers[0], numbers[1], unit)
    assert set(all_labels(splits)) == set(numbers)
    assert read(folder, task="regression", unit="own").task.unit == "own"  # type: ignore[attr-defined]


def test_a_unit_behind_whole_numbers_leaves_classes(tmp_path: Path) -> None:
    folder = labelled(tmp_path, ("10mm", "20mm", "30mm"))
    splits = read(folder)
    assert splits.task == Classification(("10mm", "20mm", "30mm"))
    assert (
        "labels were read as 3 classes (whole numbers with the unit 'mm'); data.task=regression reads them as scalars"
        in splits.notes
    )
    assert read(folder, task="regression").task == Regression(10.0, 30.0, "mm")


def test_a_currency_before_numbers_is_a_unit(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "decimals", ("$12.50", "$3.25", "-$1"))
    with pytest.raises(
        UserError, match=r"line 2: labels such as '\$12.50' may be .* the unit '\$'\); allowed: data.task=regression"
    ):
        read(folder)
    assert read(folder, task="regression").task == Regression(-1.0, 12.5, "$")
    assert read(labelled(tmp_path / "code", ("EUR 1,5", "EUR 2,5")), task="regression").task.unit == "EUR"  # type: ignore[attr-defined]
    notes = read(labelled(tmp_path / "whole", ("$5", "$10"))).notes
    assert "labels were read as 2 classes (whole numbers with the unit '$'); data.task=regression reads them" in str(
        notes
    )
    with pytest.raises(UserError, match=r"labels such as '\$1,234.50' may be .* form that is not read"):
        read(labelled(tmp_path / "thousands", ("$1,234.50", "$950.00")))


@pytest.mark.parametrize("texts", [("USB 2.0", "USB 3.1"), ("BMW 3", "BMW 5")])
def test_other_capitals_before_numbers_are_names(tmp_path: Path, texts: tuple[str, str]) -> None:
    splits = read(labelled(tmp_path, texts))
    assert splits.task == Classification(texts)
    assert "labels were read as 2 classes (words)" in splits.notes


@pytest.mark.parametrize("texts", [("−3", "4"), ("1 234", "950"), ("1\u202f234", "2\u202f000")])
def test_whole_numbers_in_another_form_are_classes_with_a_note(tmp_path: Path, texts: tuple[str, str]) -> None:
    splits = read(labelled(tmp_path, texts))
    assert splits.task == Classification(tuple(sorted(texts)))
    assert f"2 classes ({texts[0]!r} is not read as a number, which plain ones such as 1234 or -3 are)" in str(
        splits.notes[0]
    )


def test_two_units_are_no_scalars(tmp_path: Path) -> None:
    folder = labelled(tmp_path, ("10mm", "1cm", "2cm"))
    assert read(folder).task == Classification(("10mm", "1cm", "2cm"))
    with pytest.raises(UserError, match="label '10mm' is not a number"):
        read(folder, task="regression")


def test_a_decimal_comma_and_a_unit(tmp_path: Path) -> None:
    folder = labelled(tmp_path, ("1,5 kg", "12,25 kg"))
    with pytest.raises(
        UserError, match=r"may be numbers or names .decimals with a comma.; allowed: data.task=regression"
    ):
        read(folder)
    assert read(folder, task="regression").task == Regression(1.5, 12.25, "kg")


def test_a_table_with_excels_first_line(tmp_path: Path) -> None:
    folder = labelled(tmp_path, ("1", "2"))
    text = (folder / "metadata.csv").read_text().replace(",", ";")
    (folder / "metadata.csv").write_bytes(("\ufeffsep=;\r\n" + text.replace("\n", "\r\n")).encode())
    assert read(folder).task == Classification(("1", "2"))
    (folder / "metadata.csv").write_text("sep=;\nfile_name;label\ngone.png;1\n")
    with pytest.raises(UserError, match=r"line 3: file 'gone.png'"):
        read(folder)


# --- large numbers ------------------------------------------------------------------------------------------------

TIMES = [1.7e9 + 0.5 + 20 * n for n in range(80)]  # seconds since 1970, 20 apart


def test_large_numbers_stay_apart(tmp_path: Path) -> None:
    splits = read(labelled(tmp_path, [f"{time:.2f}" for time in TIMES], 80))
    assert sorted(all_labels(splits)) == TIMES
    assert splits.train.labels.dtype == torch.float64
    assert len(splits.train.labels.unique()) == len(splits.train)
    task = splits.task
    assert isinstance(task, Regression)
    targets = task.to_target(splits.train.labels)
    assert targets.dtype == torch.float32
    assert len(targets.unique()) == len(splits.train)
    back = task.from_target(targets)
    assert float((back - splits.train.labels).abs().max()) < 1e-3
    assert len(set(task.bins(splits.train.labels)[0])) == 10
    assert all(task.read_label(task.label_text(time)) == time for time in TIMES)


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_large_numbers_in_arrays_stay_apart(tmp_path: Path, dtype: type) -> None:
    values = np.asarray(TIMES, dtype=dtype)
    images = np.stack([noise(n) for n in range(80)])
    np.savez(tmp_path / "set.npz", images=images, labels=values)
    splits = read(tmp_path / "set.npz", task="regression")
    assert sorted(all_labels(splits)) == values.tolist()


def test_usual_numbers_are_float32_as_ever(tmp_path: Path) -> None:
    splits = read(labelled(tmp_path, [f"{n / 7:.6f}" for n in range(40)]))
    assert splits.train.labels.dtype == torch.float32
    assert splits.task.from_target(torch.tensor([0.5])).dtype == torch.float32  # type: ignore[attr-defined]


def test_labels_that_the_range_makes_one_are_told(tmp_path: Path) -> None:
    texts = ["0.5"] + [f"{time:.2f}" for time in TIMES[1:]]  # one label missing, written as nought
    rows = [(f"{n}.png", text, "train" if n < 60 else "test") for n, text in enumerate(texts)]
    splits = read(metadata(tmp_path, rows, header=("file_name", "label", "split")))
    assert any("of 80 distinct labels, because their range is " in note for note in splits.notes)
    assert "because their range is 0.5 to 1.7e+09" in str(splits.notes)


def test_one_label_far_away_in_the_test_split_leaves_the_others_exact(tmp_path: Path) -> None:
    rows = [(f"{n}.png", f"{time:.2f}", "train" if n < 60 else "test") for n, time in enumerate(TIMES[:-1])]
    folder = metadata(tmp_path, [*rows, ("79.png", "0.5", "test")], header=("file_name", "label", "split"))
    splits = read(folder)
    assert sorted(all_labels(splits)) == [0.5, *TIMES[:-1]]
    assert splits.task == Regression(TIMES[0], TIMES[59])
    assert not any("can only distinguish" in note for note in splits.notes)


def test_a_folder_of_further_images_has_labels_as_the_task_has_them(tmp_path: Path) -> None:
    folder = labelled(tmp_path, ["0.7"], 5)  # one label alone, which is not exact at float32
    labels = load_whole(str(folder), Regression(0.0, float(np.float32(0.7))), 3, (16, 16), "here").labels
    assert labels.dtype == torch.float32
    assert labels.unique().tolist() == [float(np.float32(0.7))]


def test_a_large_label_out_of_range_is_named_whole(tmp_path: Path) -> None:
    folder = labelled(tmp_path, [f"{time:.2f}" for time in TIMES], 80)
    with pytest.raises(UserError, match=r"line 81: label 1700001580 is outside .*, 1700000000 to 1700001570$"):
        read(folder, label_range=(1.7e9, 1.7e9 + 1570))


def test_exact_decimals_in_a_parquet_table_are_numbers(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = [write_png(tmp_path / f"{n}.png", n).name for n in range(40)]
    prices = arrow.array([Decimal(n).scaleb(-2) for n in range(40)], arrow.decimal128(12, 2))
    parquet.write_table(arrow.table({"file_name": names, "label": prices}), tmp_path / "metadata.parquet")
    splits = read(tmp_path)
    assert sorted(all_labels(splits)) == pytest.approx([n / 100 for n in range(40)])


# --- words among numbers ------------------------------------------------------------------------------------------


def test_a_few_words_among_whole_numbers_are_named_and_refused(tmp_path: Path) -> None:
    labels = [str(n % 16) for n in range(220)]
    labels[100] = "many"
    sentence = (
        r"1 label is not a number, although 219 of 220 are: 'many' \(.*metadata\.csv, line 102\); allowed: numbers in "
        r"all rows, or data\.task=classification to read all labels as class names"
    )
    with pytest.raises(UserError, match=sentence):
        read(labelled(tmp_path / "one", labels, 220))
    splits = read(labelled(tmp_path / "names", labels[:100] * 2 + ["many"] * 10, 210), task="classification")
    assert splits.task == Classification((*sorted(map(str, range(16))), "many"))
    labels[101] = labels[102] = labels[103] = "few"
    with pytest.raises(UserError, match=r"4 labels are not numbers, although 216 .* 'few' \(.*line 104\) and 1 more"):
        read(labelled(tmp_path / "four", labels, 220))


def test_more_words_among_numbers_are_class_names(tmp_path: Path) -> None:
    labels = ["7", "8"] * 45 + ["none"] * 10
    assert read(labelled(tmp_path, labels, 100)).task == Classification(("7", "8", "none"))


def test_labels_outside_the_training_range_are_told(tmp_path: Path) -> None:
    rows = [(f"{n}.png", f"{n + 0.5}", "train" if n < 60 else "val" if n < 70 else "test") for n in range(80)]
    folder = metadata(tmp_path, [row[:2] for row in rows])
    lines = ["file_name,label,split", *map(",".join, rows)]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    notes = read(folder, label_range=[0, 100]).notes
    assert "10 test labels are outside the range of the training labels, 0.5 to 59.5" in notes
    assert "8 validation labels are outside the range of the training labels, 0.5 to 59.5" in notes  # 5 % are allowed
    (folder / "metadata.csv").write_text("\n".join(lines[:72]) + "\n")
    notes = read(folder, label_range=[0, 100]).notes
    assert "1 test label is outside the range of the training labels, 0.5 to 59.5" in notes
