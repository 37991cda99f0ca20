"""What a run may end with: the user's to mend (exit code 2), failed training (1), or time that is over (75)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something the user gave can't be used.

    The message is one sentence: what was found, where (file, row or key), and what is allowed.
    """


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """What a UserError adds behind a word that is not known: the nearest that is, or nothing where none is near.

    >>> did_you_mean("resnt8", ["cnn8", "resnet8"]), did_you_mean("xyz", ["cnn8"])
    (" (did you mean 'resnet8'?)", '')
    """
    near = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def first_of(items: Sequence[str], most: int = 20) -> str:
    """A list for a sentence: the first ``most`` items, then how many more there are.

    >>> first_of(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more:,} more" if more > 0 else "")


class OutOfTime(Exception):
    """The time that a run was given is over; what is done is saved, and the same command goes on from there."""


class TrainingError(Exception):
    """A training run can't go on (a loss that is not finite, a collapsed generator); says what was seen."""
