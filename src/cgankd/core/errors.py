"""Errors that end a run: the user can correct the input (exit code 2), training failed (1), no time is left (75)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something the user gave can't be used.

    The message is one sentence: what was found, where (file, row or key), and what is allowed.
    """


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """A hint after an unknown word: the most similar allowed word, or nothing where none is similar.

    >>> did_you_mean("resnt8", ["cnn8", "resnet8"]), did_you_mean("xyz", ["cnn8"])
    (" (did you mean 'resnet8'?)", '')
    """
    near = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def first_of(items: Sequence[str], most: int = 20) -> str:
    """A list within a sentence: the first ``most`` items, then how many more there are.

    >>> first_of(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more:,} more" if more > 0 else "")


def said(error: BaseException) -> str:
    """The type and message of an exception, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class OutOfTime(Exception):
    """A run has to stop (its message says why); its state is saved, and the same command continues from there."""


class TrainingError(Exception):
    """Training can't continue (a loss that is not finite, a collapsed generator); the message says what happened."""


class LostProcess(Exception):
    """Another process of this run has ended, or computes something else; concerns the process that raises it."""
