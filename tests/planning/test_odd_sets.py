"""What init makes of odd data sets: the task, the columns, groups, a period, and a sentence for each oddity."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from odd_sets import (
    broken_file,
    classes,
    competition,
    german,
    hdf5_with_subjects,
    mixed_sizes_and_modes,
    npz_without_test,
    table,
    table_of_another_name,
    tracks,
    twins_across_splits,
    without_labels,
)

from cgankd.core.errors import UserError
from cgankd.planning.look import look

Make = Callable[[Path], Path]

# name: (how it is made, what init writes into the data section, what it says)
SEEN: dict[str, tuple[Make, dict[str, object], list[str]]] = {
    "a German table": (
        german,
        {"label_column": "Winkel"},
        ["the comma in labels was read as a decimal point (0,5 is 0.5)", "task: regression"],
    ),
    "a table beside a folder of images": (
        competition,
        {"label_column": "age"},
        ["the column 'id' of train.csv was read as 'file_name', because it names images", "task: regression"],
    ),
    "one class of two images": (
        lambda folder: classes(folder, {"cat": 60, "dog": 60, "lynx": 2}),
        {},
        [
            "task: classification, 3 classes",
            "1 of 3 classes have fewer than 20 training images, lynx only 1",
            "no validation image is of lynx, so nothing is measured there",
        ],
    ),
    "decimal commas": (
        table("file_name;gewicht", "{n}.png;{v}", value=lambda n: f"{0.35 * n:.2f}".replace(".", ",")),
        {"label_column": "gewicht"},
        [
            "task: regression, labels 0 to 41.65",
            "fields of metadata.csv were separated at semicolons",
            "the comma in labels was read as a decimal point (0,00 is 0)",
        ],
    ),
    "mixed sizes, grey, colour and opacity": (
        mixed_sizes_and_modes,
        {"size": 32},
        [
            "20 of 60 images are transparent; black was put behind",
            "20 of 60 images are grey and got three equal channels",
            "60 of 60 images were resized to 32x32 pixels",
        ],
    ),
    "whole numbers: four grades": (
        table("file_name,label", "{n}.png,{v}", value=lambda n: n % 4),
        {},
        ["task: classification, 4 classes", "data.task=regression reads them as scalars"],
    ),
    "whole numbers: counts": (
        table("file_name,label", "{n}.png,{v}", value=lambda n: n * n % 41),
        {"task": "regression"},
        ["task: regression, labels 0 to 40"],
    ),
    "whole numbers: thirty classes of equal size": (
        table("file_name,label", "{n}.png,{v}", 240, value=lambda n: n % 30),
        {},
        ["task: classification, 30 classes", "30 of 30 classes have fewer than 20 training images"],
    ),
    "row numbers": (
        table("file_name,label", "{n}.png,{v}", value=lambda n: 1000 + n),
        {"task": "regression"},
        ["labels count the images one by one, as row numbers do: is it the right column?"],
    ),
    "tracks in file names": (tracks, {"group_pattern": r"(.+)[_-]\d+\.\w+$"}, ["makes 20 groups of 8 images"]),
    "twins across splits": (
        twins_across_splits,
        {},
        ["different test images are also in the training split, with the same pixels"],
    ),
    "HDF5 with subjects": (hdf5_with_subjects, {"group_column": "subject"}, ["task: regression, labels "]),
    "npz without a test part": (
        npz_without_test,
        {},
        ["task: classification, 3 classes", "the source has no test split, so 18 images were drawn for it"],
    ),
    "names in other scripts": (
        lambda folder: classes(folder, {"猫": 40, "Vögel & <b>": 40}, "图{}.png"),
        {},
        ["task: classification, 2 classes", "Vögel & <b>: 21", "猫: 22"],
    ),
    "angles all around": (
        table("file_name,angle", "{n}.png,{v}", value=lambda n: 3 * n),
        {"label_column": "angle", "circular": 360.0},
        ["task: regression, labels 0 to 360, which wrap"],
    ),
    "angles all around without a name": (
        table("file_name,label", "{n}.png,{v}", value=lambda n: 3 * n),
        {"circular": 360.0},
        ["labels were read as scalars that wrap at 360 (whole numbers)"],
    ),
    "angles from -pi to pi": (
        table("file_name,yaw_rad", "{n}.png,{v}", value=lambda n: f"{-3.14 + 6.28 * n / 119:.3f}"),
        {"label_column": "yaw_rad", "circular": 2 * math.pi, "unit": "radians"},
        ["60 labels outside 0 to 6.28319 became the same point of the circle inside it"],
    ),
    "hours": (
        table("file_name,hour", "{n}.png,{v}", value=lambda n: n % 24),
        {"label_column": "hour", "circular": 24.0, "unit": "hours"},
        ["task: regression, labels 0 to 24 hours, which wrap"],
    ),
    "steering angles, which do not wrap": (
        table("file_name,steering_angle", "{n}.png,{v}", value=lambda n: f"{-80 + 160 * n / 119:.2f}"),
        {"label_column": "steering_angle"},
        ["task: regression, labels -80 to 80"],
    ),
    "directions of lines, which may wrap": (
        table("file_name,orientation_deg", "{n}.png,{v}", value=lambda n: f"{1.5 * n:.2f}"),
        {"label_column": "orientation_deg", "unit": "degrees"},
        ["labels go from 0 to 178.5: if 0 and 180 are the same, as for lines, circular=180 says so"],
    ),
    "nested class folders": (
        lambda folder: classes(folder, {"birds/owl": 30, "birds/wren": 30, "fish/pike": 30, "fish/carp": 30}),
        {},
        [
            "task: classification, 2 classes",
            "images of folders inside class folders (birds/owl, birds/wren, fish/carp and 1 more) belong to the class "
            "of the upper folder; to be classes, these folders must be one level higher",
        ],
    ),
}

REFUSED: dict[str, tuple[Make, str]] = {
    "a broken file": (broken_file, r"a/7.png: not readable as an image \(image file is truncated\)"),
    "no labels": (without_labels, "has 30 images, but neither a metadata.csv nor a folder per class"),
    "a table of another name": (
        table_of_another_name,
        r"has one class folder, 'images'; at least two are needed \(where labels.csv names the images: give "
        ".*labels.csv as the source",
    ),
}


@pytest.mark.parametrize("name", list(SEEN))
def test_what_is_seen(name: str, tmp_path: Path) -> None:
    make, settings, sentences = SEEN[name]
    seen = look(str(make(tmp_path)), {})
    assert {key: getattr(seen.settings, key) for key in seen.reasons} == settings
    for sentence in sentences:
        assert any(sentence in fact for fact in seen.facts), seen.facts
    for fact in (*seen.facts, *seen.reasons.values()):
        assert "\n" not in fact
    parts = (seen.splits.train, seen.splits.val, seen.splits.test)
    if "group" in seen.splits.train.columns:
        groups = [set(part.columns["group"].tolist()) for part in parts]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    make, sentence = REFUSED[name]
    source = make(tmp_path)
    with pytest.raises(UserError) as caught:
        look(str(source), {})
    assert re.search(sentence, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


def test_a_guess_gives_way_to_what_the_user_says(tmp_path: Path) -> None:
    source = str(SEEN["hours"][0](tmp_path))
    assert look(source, {"circular": None}).splits.task.num_outputs == 24  # 24 classes with 5 images each
    assert look(source, {"task": "classification"}).splits.task.num_outputs == 24
    assert look(source, {"circular": 12.0}).splits.task.to_json()["high"] == 12.0


@pytest.mark.parametrize(
    ("column", "largest", "said"), [("angle", 180.0, {"circular": None}), ("angle", 150.0, {}), ("weight", 180.0, {})]
)
def test_a_half_turn_is_not_named_where_it_is_not_meant(
    column: str, largest: float, said: dict[str, object], tmp_path: Path
) -> None:
    make = table(f"file_name,{column}", "{n}.png,{v}", value=lambda n: f"{largest * n / 119:.2f}")
    assert not any("circular=180" in fact for fact in look(str(make(tmp_path)), said).facts)
