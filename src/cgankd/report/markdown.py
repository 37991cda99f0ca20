"""Markdown with escaped texts: a user's names and units are never read as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from cgankd.core.terminal import on_one_line

# What GitHub reads as markup: code, emphasis, tables, formulas, escapes, tags, entities, links, ends of headings.
MARKS = re.compile(
    r"[`*|$]|\\(?=[!-/:-@\[-`{-~])|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])[(\[:]|(?<![^\W_])_|_(?![^\W_])|~(?=.*~)|(?<=~)~|"
    r"(?<= )#(?=#*$)"
)
MARKS_AT_THE_START = re.compile(r"[#>+\-\[]|(?<=\d)[.)](?= |$)")


def literal(text: str) -> str:
    r"""Text on one line, escaped so that Markdown shows it unchanged.

    >>> print(literal("<b> $x$ a|b _c_ d_e a\\b [1, 2]"))
    \<b> \$x\$ a\|b \_c\_ d_e a\b [1, 2]
    """
    return MARKS.sub(r"\\\g<0>", on_one_line(text))


def bullets(sentences: Iterable[str]) -> str:
    """A list with one item per sentence."""
    return "\n".join(f"- {_first(literal(sentence))}" for sentence in sentences)


def line(texts: Iterable[str]) -> str:
    """One line of a table."""
    return _joined(map(literal, texts))


def grid(lines: Sequence[Sequence[str]]) -> str:
    """A table with columns that are aligned in a terminal too; the first line is the header."""
    escaped = [[literal(text) for text in texts] for texts in lines]
    widths = [max(3, *(cell_len(texts[place]) for texts in escaped)) for place in range(len(escaped[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def padded(texts: Sequence[str]) -> list[str]:
        blanks = [" " * (width - cell_len(text)) for text, width in zip(texts, widths, strict=True)]
        return [texts[0] + blanks[0], *(blank + text for text, blank in zip(texts[1:], blanks[1:], strict=True))]

    header, *body = map(padded, escaped)
    return "\n".join(map(_joined, [header, rule, *body]))


def _joined(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _first(text: str) -> str:
    """Escape the start of a line, so that it does not begin a heading, a list or a link."""
    start = re.match(r"\d*", text)
    assert start is not None
    end = start.end()
    return text[:end] + "\\" + text[end:] if MARKS_AT_THE_START.match(text, end) else text
