"""Names that people give their folders, classes and units: shown as they are, wherever a command shows them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, Said, write_bars
from PIL import Image

from cgankd.cli import data
from cgankd.core.terminal import plain_console
from cgankd.report import fonts

Typed = Callable[..., Said]

CLASSES = [
    "duck [male]", "duck [female]", "[/on]", "[bold]x[/bold]", "a\\b|c", "$x^2$ $y", "<script>alert(1)</script>",
    "\U0001f986 :duck:", "#0072b2", "猫", "قطة", "{{ x }}", "%s {0}", 'a, "q"',
]  # fmt: skip
NAME = "odd [1] $a$ <b>"
SHORT = """
name: "odd [/recipe] $a$ <b>"
description: "[/described] {{ 1 }} <i>"
extends: tiny.yaml
data: {source: "odd [1] $a$ <b>", train_size: null}
compare: {methods: [nokd_longer, cgan]}
"""


class Page(HTMLParser):
    """The texts of a page, and the kinds of its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def write_classes(folder: Path, classes: list[str], count: int = 12) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "label"])
        for number in range(count * len(classes)):
            Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{number}.png")
            table.writerow([f"{number}.png", classes[number % len(classes)]])


@pytest.fixture
def odd(typed: Typed, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.setattr(data, "console", plain_console(width=200))
    write_classes(tiny.parent / NAME, CLASSES)
    return typed


def test_a_data_set_of_classes(odd: Typed, tmp_path: Path) -> None:
    said = odd("data", NAME)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert f"{NAME}: classification, 16x16 pixels, 1 channel(s)" in lines
    for name in CLASSES:
        assert [line for line in lines if f" {name} " in f" {line}"], name
    assert lines[-1] == f"wrote {NAME}.png"
    assert (tmp_path / f"{NAME}.png").is_file()
    assert odd("data", NAME, "--out", "grids [/1]/a.png").out.splitlines()[-1] == "wrote grids [/1]/a.png"


def test_classes_that_no_font_shows_are_numbered_and_explained(odd: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "can_show", str.isascii)
    said = odd("data", NAME)
    assert (said.code, said.err) == (0, "")
    lines = [line.split() for line in said.out.splitlines()]
    assert ["number", "label", "train", "val", "test"] in lines
    number = {
        name: next(line[0] for line in lines if line[1:2] == name.split()[:1]) for name in (*CLASSES[7:8], "猫", "قطة")
    }
    explained = ", ".join(f"{number[name]} = {name}" for name in sorted(number))
    assert f"- no installed font can show every name, so the picture has numbers: {explained}" in said.out.splitlines()


@pytest.mark.long
def test_a_run_on_classes(odd: Typed, tmp_path: Path) -> None:
    (tmp_path / "odd [recipe].yaml").write_text(SHORT, encoding="utf-8")
    said = odd("run", "odd [recipe].yaml", "--out", "runs [/old]")
    assert (said.code, said.err) == (0, "")
    assert f"odd [/recipe] $a$ <b>: {NAME}" in said.out
    assert "runs [/old]/report.html  (open it in a browser)" in said.out
    results = json.loads((tmp_path / "runs [/old]/results.json").read_text(encoding="utf-8"))
    assert sorted(results["bins"]) == sorted(CLASSES)
    page = Page((tmp_path / "runs [/old]/report.html").read_text(encoding="utf-8"))
    assert {"b", "i"} & page.tags == set()
    assert "alert(1)" not in page.texts  # a script of its own would be such a piece
    for text in [*CLASSES, "odd [/recipe] $a$ <b>", "[/described] {{ 1 }} <i>"]:
        assert text in page.texts
    again = odd("report", "runs [/old]", "--markdown")
    assert (again.code, again.err) == (0, "")


@pytest.mark.long
def test_a_unit_in_brackets(typed: Typed, tmp_path: Path) -> None:
    write_bars(tmp_path / "bars")
    (tmp_path / "tiny.yaml").write_text(TINY)
    changes = ["data.source=bars", "data.unit='$[mm]$ | <b>'", "data.train_size=80", "compare.methods=[nokd_longer]"]
    said = typed("run", "tiny.yaml", *changes, "--out", "out", "--quiet")
    assert (said.code, said.err) == (0, "")
    assert "MAE, $[mm]$ | <b>" in " ".join(said.out.split())
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert "MAE, $[mm]$ | <b>" in page.texts  # a column of the table, and the axis of a figure
    assert page.texts.count("MAE, $[mm]$ | <b>") > 1
    assert r"MAE, \$[mm]\$ \| \<b>" in typed("report", "out", "--markdown").out


@pytest.mark.long
def test_the_table_of_several_runs(odd: Typed, tmp_path: Path) -> None:
    (tmp_path / "odd [recipe].yaml").write_text(SHORT, encoding="utf-8")
    words = ["table", "odd [recipe].yaml", "--students", "cnn8", "--settings", "description='[/x] | 猫'", "--quiet"]
    said = odd(*words, "--out", "tables [/1]")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(r"## odd [/recipe] \$a\$ \<b>: odd [1] \$a\$ \<b>")
    assert "tables [/1]: table.md, table.csv, table.json, pictures" in said.out
    rows = list(csv.DictReader((tmp_path / "tables [/1]/table.csv").open(encoding="utf-8", newline="")))
    assert {(row["recipe"], row["dataset"]) for row in rows} == {("odd [/recipe] $a$ <b>", NAME)}


@pytest.mark.skipif(os.name == "nt", reason="such names can't be there")
def test_a_folder_whose_name_is_no_text(typed: Typed, tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"plain"):
        folder = os.fsencode(tmp_path / "bad") + b"/" + name
        os.makedirs(folder)  # noqa: PTH103
        for number in range(8):
            path = folder + f"/{number}.png".encode()
            Image.fromarray(np.full((16, 16), number, dtype=np.uint8)).save(os.fsdecode(path))
    words = ["data.source=bad", "data.train_size=null", "data.val_size=null", "--out", "out", "--quiet"]
    sentence = typed("run", "digits", *words).sentence()
    assert r"class 'caf\udce9' has a name with bytes that are not UTF-8" in sentence
    assert not (tmp_path / "out").exists()
