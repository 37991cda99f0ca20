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
