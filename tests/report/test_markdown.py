"""Texts in Markdown are read as they stand, by a Markdown reader that is not ours."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cgankd.core.terminal import on_one_line
from cgankd.report import markdown

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NAMES = [
    "duck [male]", "[/on]", "[a](http://b)", "![a](b)", "[a][b]", "[ ] task", "[a]: b", "a|b", "a\\|b", "a\\", "\\",
    "<script>alert(1)</script>", "<b>", "a < b", "&lt;", "&amp;amp;", "*a*", "_a_", "__a__", "a_b_c", "`a`", "``",
    "~~a~~", "~a~", "# a", "a #", "- a", "+ a", "> a", "1. a", "1) a", "new\nline", "猫", "🦆", "-", "=", "---",
    "a]:b", "\\*",
]  # fmt: skip


def shown(source: str) -> list[str]:
    """What a reader shows of Markdown, line by line, without any mark."""
    page = READER.render(source)
    assert not re.search(r"<(em|strong|code|a|img|s|h\d|ol|blockquote|br|hr|script|b)\b", page), page
    return [html.unescape(part) for part in re.findall(r"<(?:th|td|li)(?: [^>]*)?>(.*?)</(?:th|td|li)>", page, re.S)]


letters = st.text(st.sampled_from("ab1 \\`*_[]()<>|$~#&;!:+-.=/\n猫"), min_size=1, max_size=12)
visible = letters.map(str.strip).filter(bool)


def as_read(text: str) -> str:
    return re.sub(r" +", " ", on_one_line(text)).strip()


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_table_and_in_a_list(name: str) -> None:
    grid = shown(markdown.grid([["label", name], [name, "1"]]))
    assert [as_read(text) for text in grid] == ["label", as_read(name), as_read(name), "1"]
    assert [as_read(text) for text in shown(markdown.bullets([name, "end"]))] == [as_read(name), "end"]


@given(visible, visible)
@example("a\\", "|")
def test_any_text(first: str, second: str) -> None:
    expected = [as_read(first), as_read(second)]
    assert [as_read(text) for text in shown(markdown.grid([["x", "y"], [first, second]]))] == ["x", "y", *expected]
    assert [as_read(text) for text in shown(markdown.bullets([first, second]))] == expected


def test_formulas_of_github_and_columns_of_wide_letters() -> None:
    assert markdown.literal("$x$") == r"\$x\$"
    assert markdown.grid([["label", "n"], ["猫猫", "1"], ["abcdef", "22"]]).splitlines() == [
        "| label  |   n |",
        "| ------ | --: |",
        "| 猫猫   |   1 |",
        "| abcdef |  22 |",
    ]


def test_numbers_and_intervals_are_as_they_were() -> None:
    for text in ("+2.0 [+1.0, +3.0]", "85.7 ± 0.2 %", "cgan_kd", "data.train_size=400 seeds=[0, 1]", "p < 0.05"):
        assert markdown.literal(text) == text
