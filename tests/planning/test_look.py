"""What is seen in a data set before any recipe: columns, groups, sizes, and what is odd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgankd.core.errors import UserError
from cgankd.planning.look import Look, as_chosen, look, smaller


def save(path: Path, seed: int, width: int = 20, height: int = 20) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.name


def table(folder: Path, header: str, line: str, count: int = 60, **shape: int) -> str:
    """Images and metadata.csv; line: of n, the number of the image."""
    lines = [header]
    for n in range(count):
        save(folder / f"{n}.png", n, **shape)
        lines.append(f"{n}.png," + line.format(n=n, angle=n * 1.37, group=n // 5))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_the_only_column_is_the_label_and_a_group_column_keeps_images_together(tmp_path: Path) -> None:
    seen = look(table(tmp_path, "file_name,steering,drive", "{angle:.2f},{group}"), {})
    assert seen.settings.label_column == "steering"
    assert seen.settings.group_column == "drive"
    assert seen.splits.task.name == "regression"
    groups = [set(part.columns["group"].tolist()) for part in (seen.splits.train, seen.splits.val, seen.splits.test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert seen.facts[0].startswith("task: regression, labels ")
    assert seen.reasons["label_column"] == "the only column that can hold labels"


def test_a_folder_of_images_without_labels_is_used(tmp_path: Path) -> None:
    for number in range(60):
        save(tmp_path / "set" / "ab"[number % 2] / f"{number}.png", number)
        save(tmp_path / "set" / "unlabelled" / f"{number}.png", 1000 + number)
    source, further = str(tmp_path / "set"), str(tmp_path / "set" / "unlabelled")
    seen = look(source, {})
    assert seen.settings.unlabelled == further
    assert seen.reasons["unlabelled"] == "its name says that its images have no labels"
    assert f"60 unlabelled images of {further}" in seen.facts
    assert look(source, {"unlabelled": None}).settings.unlabelled is None
    assert look(f"{source}/", {}).settings.unlabelled == further


def test_in_the_copy_of_an_address_it_is_named_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "cache"))
    for number in range(60):
        save(tmp_path / "set" / "ab"[number % 2] / f"{number}.png", number)
        save(tmp_path / "set" / "unlabelled" / f"{number}.png", 1000 + number)
    address = f"file://{tmp_path}/set"
    seen = look(address, {})
    assert seen.settings.unlabelled == f"{address}/unlabelled"
    assert len(seen.splits.unlabelled) == 60


def test_a_table_that_names_no_files_is_refused_before_its_label_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no column 'file_name'; .* instead of 'bild'$"):
        look(table(tmp_path, "bild,width,height", "{angle:.2f},{n}"), {})


def test_images_that_cant_be_read_name_the_option_that_leaves_them_out(tmp_path: Path) -> None:
    hint = r"; --skip-bad \(data.skip_bad=true\) goes on without$"
    cut, gone = table(tmp_path / "cut", "file_name,a", "{angle}"), table(tmp_path / "gone", "file_name,a", "{angle}")
    Path(cut, "7.png").write_bytes(b"no image")
    Path(gone, "7.png").unlink()
    with pytest.raises(UserError, match=rf"7\.png: not readable as an image .*{hint}"):
        look(cut, {})
    for reader in (look, as_chosen):
        with pytest.raises(UserError, match=rf"line 9: file '7\.png' is not in .*{hint}"):
            reader(gone, {})
        seen = reader(gone, {"skip_bad": True})
        assert (seen.settings if isinstance(seen, Look) else seen[0]).skip_bad


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("angle_deg", "degrees"),
        ("age (years)", "years"),
        ("yaw [degrees]", "degrees"),
        ("temperature (°C)", "°C"),
        ("roll.rad", "radians"),
        ("heightCm", "cm"),
        ("years", "years"),
        ("length (m)", "m"),
        ("reading (bar)", "bar"),
        ("load [kN/m2]", "kN/m2"),
        ("Alter (Jahre)", "Jahre"),
    ],
)
def test_the_name_of_the_column_says_the_unit(column: str, unit: str, tmp_path: Path) -> None:
    seen = look(table(tmp_path, f"file_name,{column}", "{angle:.2f}"), {})
    assert seen.settings.unit == seen.splits.task.metric_unit == unit
    assert seen.reasons["unit"] == f"the name of the column {column!r} says so"


def test_labels_far_from_zero_are_shown_with_both_ends(tmp_path: Path) -> None:
    seen = look(table(tmp_path, "file_name,day (days)", "2459000.{n:02d}"), {})
    assert seen.facts[0] == "task: regression, labels 2459000 to 2459000.58 days"


@pytest.mark.parametrize("column", ["steering", "score_m", "value (new)", "grade (1/6)", "angle (deg) old"])
def test_a_name_without_a_unit_gives_a_hint(column: str, tmp_path: Path) -> None:
    seen = look(table(tmp_path, f"file_name,{column}", "{angle:.2f}"), {})
    assert "unit" not in seen.reasons
    assert seen.facts[1] == "unit of the label: not known; data.unit=NAME shows one in tables and reports"


def test_the_unit_is_for_scalars_and_the_users_word_and_the_labels_come_first(tmp_path: Path) -> None:
    classes = look(table(tmp_path / "a", "file_name,kind_deg", "c{group}"), {})
    assert (classes.settings.unit, "unit" in classes.reasons) == ("", False)
    assert not any("unit of the label" in fact for fact in classes.facts)
    given = look(table(tmp_path / "b", "file_name,angle_deg", "{angle:.2f}"), {"unit": "gon"})
    assert given.splits.task.metric_unit == "gon"
    written = look(table(tmp_path / "c", "file_name,size_mm", "{angle:.2f} cm"), {"task": "regression"})
    assert written.splits.task.metric_unit == "cm"


@pytest.mark.parametrize(("form", "task"), [("{n}", "regression"), ("{n:04}", "auto")])
def test_numbers_with_zeros_before_them_are_names(form: str, task: str, tmp_path: Path) -> None:
    seen, _ = as_chosen(str(table(tmp_path, "file_name,label", form)), {})
    assert seen.task == task


def test_several_columns_are_a_question(tmp_path: Path) -> None:
    source = table(tmp_path, "file_name,width,height", "{angle:.2f},{n}")
    wanted = r"which one holds the label: width \(such as '0.00'\), height \(such as '0'\); needed: its name, such as "
    with pytest.raises(UserError, match=f"has no column 'label', and it is not clear {wanted}label_column=width$"):
        look(source, {})
    assert look(source, {"label_column": "width"}).splits.task.continuous


@pytest.mark.parametrize(
    ("header", "line", "column", "reason"),
    [
        ("file_name,count,photographer", "{n},p{group}", "count", "its name says so; other columns: photographer"),
        (
            "file_name,sky,brix",
            "w{group},{angle:.2f}",
            "brix",
            "the only column of numbers; other columns: sky",
        ),
        ("file_name,image_id,brix", "{n},{angle:.2f}", "brix", "the only column of numbers; other columns: image_id"),
        ("file_name,steering_angle,shot", "{angle:.2f},{n}", "steering_angle", "its name says so; other columns: shot"),
    ],
)
def test_the_only_plausible_column_is_the_label(
    header: str, line: str, column: str, reason: str, tmp_path: Path
) -> None:
    settings, reasons = as_chosen(table(tmp_path, header, line), {})
    assert settings.label_column == column
    assert reasons["label_column"] == reason


@pytest.mark.parametrize(
    ("header", "line", "example"),
    [
        ("file_name,age,count", "{n},{angle:.2f}", "age"),
        ("file_name,x,y", "{n},{angle:.2f}", "x"),
        ("file_name,artist,place", "a{n},p{group}", "artist"),
        ("file_name,fill percent,brix", "{n},{angle:.2f}", "'fill percent'"),  # as a shell needs it
    ],
)
def test_columns_that_are_equally_plausible_are_a_question(
    header: str, line: str, example: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"not clear which one .*, such as label_column={example}$"):
        look(table(tmp_path, header, line), {})


def test_columns_of_a_parquet_file_are_compared_by_their_values(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table(tmp_path / "images", "file_name,label", "{n}")
    images = [(tmp_path / "images" / f"{n}.png").read_bytes() for n in range(60)]
    columns = {"image": images, "maker": ["a", "b"] * 30, "brix": [n * 1.37 for n in range(60)]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "fruit.parquet")
    settings, _ = as_chosen(str(tmp_path / "fruit.parquet"), {})
    assert settings.label_column == "brix"


def test_frames_of_a_track_stay_in_one_split(tmp_path: Path) -> None:
    for kind in ("stop", "yield"):
        for track in range(12):
            for frame in range(5):
                save(tmp_path / kind / f"{track:05}_{frame:05}.png", 1000 * track + frame)
    seen = look(str(tmp_path), {})
    assert "look like frames of 24 tracks" in seen.reasons["group_pattern"]
    train, val = (set(part.columns["group"].tolist()) for part in (seen.splits.train, seen.splits.val))
    assert not train & val


def test_numbered_files_of_a_class_are_no_tracks(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for number in range(40):
            save(tmp_path / kind / f"{kind}_{number}.png", number)
    seen = look(str(tmp_path), {})
    assert seen.settings.group_pattern is None
    assert seen.facts[0] == "task: classification, 2 classes"


@pytest.mark.parametrize(
    ("side", "size", "why"),
    [(17, None, ""), (64, None, ""), (100, 64, "large images take long"), (12, 32, "small images are enlarged")],
)
def test_a_size_is_chosen_where_images_are_large_or_small(
    side: int, size: int | None, why: str, tmp_path: Path
) -> None:
    seen = look(table(tmp_path, "file_name,label", "{angle:.2f}", width=side, height=side), {})
    assert seen.settings.size == size
    assert why in seen.reasons.get("size", "")


def test_a_size_is_chosen_where_images_differ(tmp_path: Path) -> None:
    for n in range(60):
        save(tmp_path / ("a" if n % 2 else "b") / f"{n}.png", n, width=40 + n, height=50)
    seen = look(str(tmp_path), {})
    assert seen.settings.size == 48
    assert "images differ in size" in seen.reasons["size"]
    assert look(str(tmp_path), {"size": 32}).splits.train.size == (32, 32)


def test_rare_classes_and_imbalance_are_told(tmp_path: Path) -> None:
    for number in range(200):
        save(tmp_path / ("many" if number < 188 else "few") / f"x{number}.png", number)
    facts = " | ".join(look(str(tmp_path), {}).facts)
    assert "1 of 2 classes have fewer than 20 training images" in facts
    assert "uneven: many has " in facts


def test_the_next_size_is_the_largest_that_may_be_fast_enough(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(9):
            Image.new("L", (64, 64), 9 * number).save(tmp_path / "set" / name / f"{number}.png")
    looked = look(str(tmp_path / "set"), {})
    assert [smaller(looked, share) for share in (0.9, 0.5625, 0.5, 0.01)] == [48, 48, 32, 32]
    assert smaller(look(str(tmp_path / "set"), {"size": 64}), 0.5) is None
