"""Paths as a user types them."""

from __future__ import annotations

from pathlib import Path

from cgankd.core.errors import UserError


def expanded(path: str | Path) -> Path:
    """The path with ``~`` replaced by the home folder; UserError where ``~name`` names no user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: the home folder of this user is not known; allowed: ~/... or a full path") from None


def expanded_word(word: str) -> str:
    """An argument of the command line with ~ replaced where no shell did so: in quotes, or in --out=~/runs."""
    option, equals, path = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{expanded(path)}" if path.startswith("~") else word
