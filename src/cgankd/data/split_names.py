"""Names of splits in their usual spellings: train, Training, test_images, val2017, "Validation set"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cgankd.core.errors import UserError
from cgankd.data.listing import TEST, TRAIN, VAL

WORDS = {
    "train": TRAIN, "training": TRAIN,
    "val": VAL, "valid": VAL, "validation": VAL, "validate": VAL, "dev": VAL,
    "test": TEST, "testing": TEST, "eval": TEST, "evaluation": TEST,
}  # fmt: skip
ALLOWED = "train, val, test, or such a word with a suffix (Training, test_images, val2017)"
_WORD = f"({'|'.join(sorted(WORDS, key=len, reverse=True))})"
_SUFFIX = r"(set|images?|imgs?|pictures?|pics|photos?|data|dataset|split|subset|folder|files|part|[^\W\d_]?\d+)"
_NAME = re.compile(rf"[\W\d_]*{_WORD}([\W_]*{_SUFFIX})*[\W_]*", re.IGNORECASE)
_SOMEWHERE = re.compile(rf"(.*[\W\d_])?{_WORD}([\W\d_].*)?", re.IGNORECASE)


def split_of(name: str) -> int | None:
    """The split that a name stands for; None for any other name.

    >>> split_of("Training"), split_of("test_images"), split_of("valid-set"), split_of("val2017"), split_of("trains")
    (0, 2, 1, 1, None)
    """
    match = _NAME.fullmatch(name)
    return WORDS[match[1].lower()] if match else None


def splits_of(names: Sequence[str]) -> list[int | None]:
    """The split of each name, without a prefix that all names share (seg_train, seg_test)."""
    splits = [split_of(name) for name in names]
    first, last = min(names), max(names)
    same = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    start = max((place + 1 for place in range(same) if not first[place].isalnum()), default=0)
    without = [split_of(name[start:]) for name in names]
    return splits if None in without else without


def splits_of_files(paths: Sequence[Path], splits: Sequence[int | None]) -> list[int]:
    """The splits that the names of files stand for; where no name does, all are training. UserError where some do."""
    named = [split for split in splits if split is not None]
    if named and len(named) < len(splits):
        odd = paths[splits.index(None)]
        raise UserError(f"{odd}: its name is no split's, but the names of other files are; allowed: {ALLOWED}")
    return named or [TRAIN] * len(splits)


def split_inside(name: str) -> int | None:
    """The split whose word a name contains, as in my-train-v2; None where there is none."""
    match = _SOMEWHERE.fullmatch(name)
    return WORDS[match[2].lower()] if match else None
