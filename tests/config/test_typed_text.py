"""Text that YAML would read as something else, and paths that begin with ~: what a setting becomes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cgankd.cli import main
from cgankd.config import recipe
from cgankd.config.recipe import Recipe
from cgankd.core.errors import UserError
from cgankd.lm import settings as lm_settings


def value(found: Any, key: str) -> Any:
    for part in key.split("."):
        found = found[int(part)] if part.isdecimal() else getattr(found, part)
    return found


WORDS = [
    "no",
    "No",
    "on",
    "yes",
    "off",
    "true",
    "2024",
    "007",
    "1_000",
    "0x1F",
    "1.50",
    "1e3",
    "1:30",
    "2024-05-01",
    ".inf",
]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("key", ["data.label_column", "data.group_column", "data.unit", "name", "data.source"])
def test_the_command_line_keeps_words_of_text_settings(key: str, word: str) -> None:
    assert value(recipe.from_tree({}, [f"{key}={word}"]), key) == word


@pytest.mark.parametrize("word", WORDS)
def test_a_file_keeps_words_of_text_settings(tmp_path: Path, word: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: {word}\ndata: {{label_column: {word}, unit: {word}}}\ncompare: {{methods: [kd, {word}]}}\n"
        f"teacher: {{jury: [{{network: {word}}}]}}\n"
    )
    found = recipe.load(str(path))
    assert (found.name, found.data.label_column, found.data.unit) == (word, word, word)
    assert found.compare.methods == ("kd", word)
    assert found.teacher.jury[0].network == word


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.label_column=null", None),
        ("data.label_column=~", None),
        ("data.label_column=", None),
        ("data.label_column='null'", "null"),
        ('data.label_column="no"', "no"),
        ("data.unit=null", "null"),
        ("data.unit=", ""),
        ("data.unit=[mm]", "[mm]"),
        ("data.unit=%", "%"),
        ("data.unit=m #1", "m #1"),
        ("data.unit=it's", "it's"),
        ("data.unit='a", "'a"),
        ("data.unit='a' or b", "'a' or b"),
        ("data.unit={a: b}", "{a: b}"),
        ("data.size=0100", 100),
        ("data.size=64", 64),
        ("demonstration=yes", True),
    ],
)
def test_quotes_nulls_and_signs(override: str, expected: object) -> None:
    key = override.partition("=")[0]
    assert value(recipe.from_tree({}, [override]), key) == expected


def test_nulls_and_other_words_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {label_column: null, group_column: ~, unit: ~, size: 0100}\nsearch: no\ndemonstration: on\n")
    found = recipe.load(str(path))
    assert (found.data.label_column, found.data.group_column, found.data.unit) == (None, None, "~")
    assert (found.data.size, found.search, found.demonstration) == (100, None, True)


def test_what_no_person_means_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.size = '1:30' is not allowed"):
        recipe.from_tree({}, ["data.size=1:30"])
    with pytest.raises(UserError, match=r"data\.source = '' is not allowed"):
        recipe.from_tree({}, ["data.source="])


def test_keys_are_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {on: 1}\n")
    with pytest.raises(UserError, match=r"key 'data\.on' is not known"):
        recipe.load(str(path))


def test_words_survive_the_way_there_and_back(tmp_path: Path) -> None:
    found = recipe.from_tree({}, ["data.label_column=no", "data.unit=2024", "name=null"])
    (tmp_path / "copy.yaml").write_text(found.to_yaml(), encoding="utf-8")
    assert recipe.load(str(tmp_path / "copy.yaml")) == found


PATHS = [
    "data.source",
    "teacher.source",
    "teacher.weights",
    "teacher.start",
    "generator.source",
    "teacher.jury.0.weights",
]


@pytest.mark.parametrize("key", PATHS)
def test_the_home_folder_in_settings_that_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    override = f"{key}=~/a.safetensors" if "jury" not in key else "teacher.jury=[{weights: ~/a.safetensors}]"
    assert value(recipe.from_tree({}, [override]), key) == str(tmp_path / "a.safetensors")


def test_other_paths_stay_as_they_were_typed() -> None:
    assert recipe.from_tree({}, ["data.source=./a/~b"]).data.source == "./a/~b"
    assert recipe.from_tree({}, ["teacher.source=my.service:ask"]).teacher.source == "my.service:ask"


def test_the_home_folder_of_language_models_and_of_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    overrides = ["teacher.folder=~/big", "student.folder=~/small", "text.source=~/texts"]
    found = lm_settings.load("pydoc", overrides)
    assert (found.teacher.folder, found.student.folder) == (str(tmp_path / "big"), str(tmp_path / "small"))
    assert found.text.source == str(tmp_path / "texts")
    (tmp_path / "base.yaml").write_text("seeds: [7]")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "heir.yaml").write_text("extends: ~/base.yaml")
    assert recipe.load("~/sub/heir.yaml").seeds == (7,)


def test_a_home_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.source = '~nobody-of-this-name/x' is not allowed: .*home folder"):
        recipe.from_tree({}, ["data.source=~nobody-of-this-name/x"])
    assert Recipe().data.source == "digits"


def test_the_home_folder_behind_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cgankd", "data", "digits", "train_size=100", "--out=~/pictures/digits.png"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 0, capsys.readouterr()
    assert (tmp_path / "pictures" / "digits.png").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    "key", ["student.fit.clip_norm", "data.size", "data.label_range", "ratio.vicinity_gaps", "generator.r1", "search"]
)
def test_none_is_no_value_where_a_setting_may_have_none(key: str, tmp_path: Path) -> None:
    assert value(recipe.from_tree({}, [f"{key}=none"]), key) is None
    parts = key.split(".")
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(parts)).rstrip() + " none\n")
    assert value(recipe.load(str(path)), key) is None


def test_none_is_text_where_a_setting_is_text() -> None:
    assert recipe.from_tree({}, ["data.label_column=none"]).data.label_column == "none"
