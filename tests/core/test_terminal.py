"""A user's words in the terminal: shown as they are, never taken for rich's marks."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import cgankd
from cgankd.core.terminal import on_one_line, plain_console
from cgankd.core.views import PlainLines
from cgankd.core.watching import Watched

NAMES = ["duck [male]", "[/on]", "[bold]x[/bold]", ":duck: 7", "a\\[b]", "[link=http://a]b[/link]", "猫", "100%"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_is_what_was_given(name: str) -> None:
    stream = io.StringIO()
    console = plain_console(file=stream, width=200, force_terminal=True, color_system="truecolor")
    table = Table(name, box=None, pad_edge=False, title=name)
    table.add_row(name)
    console.print(name)
    console.print(table)
    assert re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()).split("\n")[0] == name
    assert stream.getvalue().count(name) == 4


@pytest.mark.parametrize("name", NAMES)
def test_bars_and_lines_of_progress_on_any_console(name: str) -> None:
    stream = io.StringIO()
    view = PlainLines(Console(file=stream, width=200))
    progress = Watched([view])
    with progress.bar(name, 2) as bar:
        bar.to(1, name)
        view.tick(progress)
    progress.say(name)
    assert stream.getvalue().splitlines() == [f"{name} 1/2 steps, {name}", name]


def test_letters_that_break_lines_or_steer_the_terminal_become_escapes() -> None:
    assert on_one_line("a\nb\tc\x1b[31m\u2028\udcff") == "a\\nb\\tc\\x1b[31m\\u2028\\udcff"
    for text in ("duck [male]", "a\\b", "猫", "👨\u200d👩\u200d👧", "قطة", "a\u00a0b", "\u3000"):
        assert on_one_line(text) == text


def test_every_console_of_the_package_is_a_plain_one() -> None:
    package = Path(cgankd.__file__).parent
    made = [str(path.relative_to(package)) for path in package.rglob("*.py") if "Console(" in path.read_text()]
    assert made == ["core/terminal.py"]


def test_a_reader_that_leaves_ends_no_command() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        console = plain_console(file=stream)
        for _ in range(2):
            console.print("to nobody")
