"""Folders as people have them: names of splits, links, litter, images beside class folders, groups by path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pictures import class_folders, metadata, noise, read, refuses, sizes, write_png
from PIL import ExifTags, Image

from cgankd.data.imageset import Splits
from cgankd.tasks import Classification


def total(splits: Splits) -> int:
    return len(splits.pool) + len(splits.val) + len(splits.test)


def divided(folder: Path, train: str, val: str, test: str) -> Path:
    """Class folders below folders of these names: 20 images train, 4 validate, 6 test."""
    class_folders(folder / train, {"a": 10, "b": 10})
    class_folders(folder / val, {"a": 2, "b": 2}, seed=100)
    class_folders(folder / test, {"a": 3, "b": 3}, seed=200)
    return folder


# --- names of splits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "Validation", "Testing"),
        ("TRAIN", "VAL", "TEST"),
        ("train_set", "valid_set", "test_set"),
        ("trainset", "valset", "testset"),
        ("train-images", "val-images", "test-images"),
        ("TrainImages", "ValidImages", "TestImages"),
        ("train2017", "val2017", "test2017"),
        ("Training Set", "Dev Set", "Evaluation Set"),
        ("01_train", "02_valid", "03_test"),
        ("seg_train", "seg_val", "seg_test"),
        ("my data train", "my data val", "my data test"),
    ],
)
def test_the_usual_names_of_splits(tmp_path: Path, train: str, val: str, test: str) -> None:
    splits = read(divided(tmp_path, train, val, test))
    assert sizes(splits) == [20, 4, 6]
    assert splits.task == Classification(("a", "b"))
    told = [note for note in splits.notes if note.startswith("folders read as splits: ")]
    assert len(told) == 1
    assert f"{train} (training)" in told[0]
    assert f"{val} (validation)" in told[0]
    assert f"{test} (test)" in told[0]


def test_the_plain_names_need_no_note(tmp_path: Path) -> None:
    assert not any("folders read" in note for note in read(divided(tmp_path, "train", "val", "test")).notes)


def test_several_folders_may_be_of_one_split(tmp_path: Path) -> None:
    divided(tmp_path, "train_1", "val", "test")
    class_folders(tmp_path / "train_2", {"a": 4, "b": 1}, seed=300)
    assert sizes(read(tmp_path)) == [25, 4, 6]


def test_a_folder_of_another_name_beside_splits_is_asked_about(tmp_path: Path) -> None:
    divided(tmp_path, "Training", "val", "Testing")
    class_folders(tmp_path / "extra", {"x": 3}, seed=300)
    refuses(r"extra: is beside Training/; .*split_folders=true .* or data.split_folders=false", tmp_path)
    splits = read(tmp_path, split_folders=True)
    assert sizes(splits) == [20, 4, 6]
    assert "folders that are no splits were left out: extra" in splits.notes
    assert read(tmp_path, split_folders=False).task == Classification(("Testing", "Training", "extra", "val"))


def test_a_test_folder_without_a_training_folder_is_asked_about(tmp_path: Path) -> None:
    class_folders(tmp_path, {"cat": 10, "dog": 10, "test": 5})
    refuses("test: names a split, but no folder beside it names training, so it is not clear", tmp_path)
    assert read(tmp_path, split_folders=False).task == Classification(("cat", "dog", "test"))
    refuses("data.split_folders=true, but no folder in it names training", tmp_path, split_folders=True)


def test_a_word_for_a_split_inside_a_name_is_asked_about_where_folders_lie_below(tmp_path: Path) -> None:
    class_folders(tmp_path / "a" / "scans_train_v2x", {"cat": 10, "dog": 10})
    class_folders(tmp_path / "a" / "held", {"cat": 2, "dog": 2}, seed=100)
    refuses("scans_train_v2x: may be a split or a class", tmp_path / "a")
    class_folders(tmp_path / "b", {"steam_train": 10, "tram": 10})  # no folders below: classes
    assert read(tmp_path / "b").task == Classification(("steam_train", "tram"))


def test_folders_that_name_a_split_and_a_class_are_asked_about(tmp_path: Path) -> None:
    names = {"train_cats": 10, "train_dogs": 10, "test_cats": 5, "test_dogs": 5}
    class_folders(tmp_path, names)
    refuses("folders such as train_dogs/ and test_dogs/ name a split and perhaps a class; allowed: a folder", tmp_path)
    assert read(tmp_path, split_folders=False).task == Classification(tuple(sorted(names)))


def test_trains_among_other_vehicles_are_a_class(tmp_path: Path) -> None:
    class_folders(tmp_path, {"bus": 10, "car": 10, "train": 10})
    assert read(tmp_path).task == Classification(("bus", "car", "train"))


def test_splits_inside_class_folders_are_asked_about(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        class_folders(tmp_path / name, {"train": 8, "test": 3}, seed=len(name) * 50 + ord(name[0]))
    refuses(
        "cat/train: names a split inside a class folder; allowed: train/cat/, or data.split_folders=false", tmp_path
    )
    splits = read(tmp_path, split_folders=False)
    assert (splits.task, total(splits)) == (Classification(("cat", "dog")), 22)


def test_a_folder_around_the_data_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "archive", {"a": 10, "b": 10})
    refuses("has only one folder, archive/, which contains folders; give .*archive$", tmp_path)


def test_settings_of_folders_are_refused_for_other_sources(tmp_path: Path) -> None:
    refuses(
        "data.split_folders=True is for a folder of image files, not for digits", Path("digits"), split_folders=True
    )
    refuses("data.group_pattern='x' is for a folder of image files", Path("digits"), group_pattern="x")
    refuses("data.group_column='x' is for a table or arrays, not for digits", Path("digits"), group_column="x")
    refuses("data.label_column='x' is for a table or arrays, not for digits", Path("digits"), label_column="x")
    refuses("data.bits=12, but digits has no image of 16 bits", Path("digits"), bits=12)


def test_an_orientation_that_does_not_exist_changes_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 9
    for number in range(20):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise(number, 16, 24)).save(path, exif=exif)
    assert read(tmp_path).train.size == (16, 24)


def test_a_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path, {"7": 40, "9": 20})
    refuses("train_per_class=15, but label 9 of ", tmp_path, train_per_class=15)


# --- what is left out is told -------------------------------------------------------------------------------------


def test_images_beside_class_folders_are_told(tmp_path: Path) -> None:
    class_folders(tmp_path / "plain", {"a": 10, "b": 10})
    for number in range(3):
        write_png(tmp_path / "plain" / f"{number}.png", 500 + number)
    told = "images were left out: beside the class folders, in none of them"
    assert f"3 {told}" in read(tmp_path / "plain").notes
    divided(tmp_path / "split", "train", "val", "test")
    write_png(tmp_path / "split" / "train" / "x.png", 600)
    write_png(tmp_path / "split" / "test" / "x.png", 601)
    splits = read(tmp_path / "split")
    assert f"2 {told}" in splits.notes
    assert total(splits) == 30


def test_litter_is_left_out_and_told(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 10, "b": 10})
    write_png(tmp_path / "a" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.png", 1)
    write_png(tmp_path / "@eaDir" / "b" / "x.png", 2)
    write_png(tmp_path / "__MACOSX" / "a" / "x.png", 3)
    write_png(tmp_path / "b" / ".ipynb_checkpoints" / "0-checkpoint.png", 4)
    write_png(tmp_path / "b" / "._000.png", 5)
    write_png(tmp_path / "b" / ".trash.png", 6)
    for name in (".DS_Store", "a/.DS_Store", "a/Thumbs.db", "b/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    splits = read(tmp_path)
    assert (total(splits), splits.task) == (20, Classification(("a", "b")))
    assert (
        "hidden files and system files were left out: .DS_Store (2), ._* (1), .ipynb_checkpoints (1), "
        "@eaDir (2), Thumbs.db (1), __MACOSX (1), desktop.ini (1), other hidden files (1)" in splits.notes
    )
    assert not any("passed over" in note for note in splits.notes)


def test_a_clean_folder_has_no_note_of_litter(tmp_path: Path) -> None:
    assert not any("left out" in note for note in read(class_folders(tmp_path, {"a": 10, "b": 10})).notes)


# --- links --------------------------------------------------------------------------------------------------------


def test_links_inside_class_folders_are_followed(tmp_path: Path) -> None:
    class_folders(tmp_path / "elsewhere", {"more": 20, "c": 7}, seed=300)
    class_folders(tmp_path / "data", {"a": 10, "b": 10})
    (tmp_path / "data" / "a" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "data" / "c").symlink_to(Path("..") / "elsewhere" / "c")
    (tmp_path / "data" / "b" / "one.png").symlink_to(tmp_path / "elsewhere" / "more" / "000.png")
    splits = read(tmp_path / "data")
    labels = torch.cat([splits.pool.labels, splits.val.labels, splits.test.labels])
    assert torch.bincount(labels).tolist() == [30, 11, 7]
    assert "1 image has two paths, because of links" in splits.notes
    (tmp_path / "whole").symlink_to(tmp_path / "data")
    assert total(read(tmp_path / "whole")) == 48


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_links_that_lead_back_are_refused(tmp_path: Path, target: str) -> None:
    class_folders(tmp_path / "data", {"a": 10, "b": 10})
    (tmp_path / "data" / "a" / "back").symlink_to(target)
    refuses(r"back: the link leads back to .*, which contains it; allowed: links to other", tmp_path / "data")


def test_two_folders_that_link_to_each_other_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "data", {"a": 10, "b": 10})
    (tmp_path / "data" / "a" / "other").symlink_to(tmp_path / "data" / "b")
    (tmp_path / "data" / "b" / "other").symlink_to(tmp_path / "data" / "a")
    refuses("the link leads back to", tmp_path / "data")


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "a", {"a": 10, "b": 10})
    (tmp_path / "a" / "c").symlink_to(tmp_path / "gone")
    refuses(r"a/c: the link leads nowhere \(.*gone\)", tmp_path / "a")
    class_folders(tmp_path / "b", {"a": 10, "b": 10})
    (tmp_path / "b" / "b" / "x.png").symlink_to(tmp_path / "gone.png")
    refuses(r"b/b/x.png: is a link to a missing file; allowed", tmp_path / "b")


def test_a_folder_that_can_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, {"a": 10, "b": 10})
    entries = Path.iterdir

    def denied(path: Path) -> object:
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return entries(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    refuses("/b: can't be read: Permission denied$", tmp_path)


def test_links_are_followed_for_a_table(tmp_path: Path) -> None:
    class_folders(tmp_path / "elsewhere", {"images": 20})
    rows = [f"linked/{n:03}.png,{n % 2}" for n in range(20)]
    (tmp_path / "elsewhere" / "table.csv").write_text("file_name,label\n" + "\n".join(rows))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere" / "images")
    (tmp_path / "data" / "metadata.csv").symlink_to(tmp_path / "elsewhere" / "table.csv")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")  # of no matter: the table says which files count
    assert total(read(tmp_path / "data")) == 20
    shutil.move(tmp_path / "data" / "metadata.csv", tmp_path / "elsewhere" / "images" / "metadata.csv")
    (tmp_path / "data" / "loop").unlink()
    table = tmp_path / "elsewhere" / "table.csv"
    table.write_text(table.read_text().replace("linked/", ""))
    assert total(read(tmp_path / "data")) == 20  # the table lies behind a link now


# --- groups by path -----------------------------------------------------------------------------------------------


def tracks(folder: Path) -> Path:
    """Two classes of six tracks of five frames: CLASS/TRACK_FRAME.png, as of traffic signs."""
    for name in ("stop", "yield"):
        for track in range(6):
            for frame in range(5):
                seed = 1000 * len(name) + 10 * track + frame
                write_png(folder / name / f"{track:05}_{frame:05}.png", seed)
    return folder


def group_sets(splits: Splits) -> list[set[int]]:
    return [set(part.columns["group"].tolist()) for part in (splits.pool, splits.val, splits.test)]


@pytest.mark.parametrize("pattern", [r"(.*)_\d+\.png", r"^[^_]+", r"(?P<track>\w+/\d{5})_", r".*(?=_)"])
def test_a_pattern_keeps_tracks_whole(tmp_path: Path, pattern: str) -> None:
    tracks(tmp_path)
    for seed in range(4):
        splits = read(tmp_path, group_pattern=pattern, seed=seed)
        groups = group_sets(splits)
        assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert any("makes 12 groups of 5 images, such as 'stop/00000'" in note for note in splits.notes)


def test_a_new_group_of_test_images_changes_no_other_split(tmp_path: Path) -> None:
    tracks(tmp_path / "train")
    tracks(tmp_path / "test")
    pattern = r"(\w+/\w+/\d+)_"
    before = read(tmp_path, group_pattern=pattern)
    (first, *_) = sorted(path for path in (tmp_path / "test").rglob("*.png"))
    first.rename(first.with_name("0_00.png"))  # of a group that comes before all others
    after = read(tmp_path, group_pattern=pattern)
    assert before.test.content_key != after.test.content_key
    for name in ("train", "pool", "val"):
        assert getattr(before, name).content_key == getattr(after, name).content_key


def test_a_pattern_without_the_class_joins_tracks_of_equal_number(tmp_path: Path) -> None:
    splits = read(tracks(tmp_path), group_pattern=r"/(\d+)_")
    assert len(set.union(*group_sets(splits))) == 6
    assert any("makes 6 groups of 10 images, such as '00000'" in note for note in splits.notes)


def test_a_pattern_for_files_of_a_table(tmp_path: Path) -> None:
    folder = metadata(tmp_path, [(f"d/../d/p{n // 5}_{n}.png", n / 60) for n in range(60)])
    splits = read(folder, group_pattern=r"d/(p\d+)_")
    assert len(set.union(*group_sets(splits))) == 12


def test_patterns_that_can_not_be_used(tmp_path: Path) -> None:
    tracks(tmp_path / "t")
    refuses(r"data.group_pattern='\(' is not a regular expression: missing \)", tmp_path / "t", group_pattern="(")
    refuses(r"has 2 groups in brackets; allowed: at most one", tmp_path / "t", group_pattern=r"(\d)_(\d)")
    refuses(
        r"names no group for 30 of 60 files: yield/00000_00000.png, yield/00000_00001.png, yield/00000_00002.png and "
        r"27 more; allowed: a pattern that matches every path",
        tmp_path / "t",
        group_pattern="stop/(.*)_",
    )
    refuses(r"names no group for 60 of 60", tmp_path / "t", group_pattern="x*")
    folder = metadata(tmp_path / "m", [(f"{n}.png", n / 60, n) for n in range(20)], ("file_name", "label", "who"))
    refuses("are both set; allowed: one of them", folder, group_pattern="(.*)", group_column="who")


@pytest.mark.parametrize("names", [(" sp", "sp"), ("caf\u00e9", "cafe\u0301")])
def test_folders_whose_names_differ_only_in_blanks_or_unicode_form_are_one_class_with_a_note(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    splits = read(class_folders(tmp_path, dict.fromkeys((*names, "other"), 10)))
    assert len(splits.task.answer_names) == 2
    (note,) = (note for note in splits.notes if "were read as one class" in note)
    for name in names:
        assert ascii(name) in note
