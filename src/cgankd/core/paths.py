"""Paths as a user types them."""

from __future__ import annotations

from pathlib import Path

from cgankd.core.errors import UserError


def expanded(path: str | Path) -> Path:
    """A path with the user's home folder for ``~``; UserError where ``~name`` names no user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: the home folder of this user is not known; allowed: ~/... or a whole path") from None


def expanded_word(word: str) -> str:
    """A word of the command line with the home folder for ~ where no shell has put it: in quotes, or --out=~/runs."""
    option, equals, path = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{expanded(path)}" if path.startswith("~") else word
