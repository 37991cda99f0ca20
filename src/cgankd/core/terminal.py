"""Printing to the terminal: a user's text is shown as it is, never read as markup."""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import IO, Any

from rich.console import Console

CONTROL = {"Cc", "Zl", "Zp", "Cs"}  # Unicode categories: control, line and paragraph separators, lone surrogates


def plain_console(**settings: Any) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no colours for numbers."""
    return _Console(markup=False, emoji=False, highlight=False, **settings)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader has gone, such as ``head``; a run goes on, and ``cgankd status`` still shows it."""
        to_nowhere(self.file)


def to_nowhere(stream: IO[str]) -> None:
    """From now on nobody reads what is written to the stream."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def escape_what_streams_cannot_write() -> None:
    """Make stdout and stderr write an escape for each character that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def on_one_line(text: str) -> str:
    r"""The text on one line: characters that break the line or control the terminal become escapes.

    >>> print(on_one_line("new\nline \x1b[31mred, 猫 stays"))
    new\nline \x1b[31mred, 猫 stays
    """
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in CONTROL else letter
        for letter in text
    )
