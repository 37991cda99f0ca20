"""Paths as a user types them, and the names of files that several modules read."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cgankd.core.errors import UserError

LOCK = ".lock"  # in every folder that a command has used, with the name of the command
RECIPE = "recipe.yaml"  # the settings of a run
RESULTS = "results.json"  # what a run writes at its end
PAGE = "report.html"  # what a run shows at its end
REJECTED = "rejected.csv"  # images that a run has left out
ARTIFACT = "artifact.json"  # what a finished stage leaves beside its tensors
TABLE_FILES = frozenset({".csv", ".tsv", ".jsonl"})  # endings of tables that name image files
IMAGE_FILES = TABLE_FILES | {".npz", ".h5", ".hdf5", ".parquet", ".tar"}  # of all files that give images and labels
TABLE, ABLATION = "table.json", "ablation.json"  # what cgankd table and cgankd ablate write
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices of Windows, with any ending


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


def is_file(path: Path) -> bool:
    """Whether there is such a file; False, not an error, for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file() raises where a name is too long


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False, not an error, for a name that no folder can have."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def check_there(folder: Path, or_else: str = "") -> None:
    """UserError where the folder that a user named as a run's is none. or_else: what else may be named there."""
    if not is_folder(folder):
        what = "is a file" if is_file(folder) else "does not exist"
        raise UserError(f"{folder} {what}; needed: the --out folder of a run{or_else and f', or {or_else}'}")


def portable(text: str) -> str:
    """``text`` as the name of one file or folder that every system allows, also Windows; at most 100 letters.

    >>> portable("a/b: c?"), portable("con.png"), portable(".."), portable("digit 3")
    ('a-b- c-', '_con.png', '_', 'digit 3')
    """
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", text)[:100].rstrip(" .")
    return f"_{name}" if not name or RESERVED.fullmatch(name) else name
