"""Names that are too long for a figure, cut so that they still differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence


def cut(text: str, longest: int) -> str:
    """The text, cut to ``longest`` letters with an ellipsis at the end if it is longer.

    >>> cut("a long name", 11), cut("a long name", 7)
    ('a long name', 'a long…')
    """
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def both_ends(text: str, longest: int) -> str:
    """The text, with an ellipsis in its middle if it has more than ``longest`` letters.

    >>> both_ends("animal/cat", 8), both_ends("ant", 8)
    ('anim…cat', 'ant')
    """
    last = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[: longest - 1 - last]}…{text[len(text) - last :]}"


def distinct(names: Sequence[str], longest: int) -> list[str] | None:
    """The names; the long ones are cut to ``longest`` letters. None where different names would look the same.

    The first of these that works: both ends are kept; the same after the letters with which all long names begin (tried
    first where these alone have the length); the last letters are kept; the first ones are.

    >>> distinct(["animal/cat", "animal/dog", "ant"], 8)
    ['anim…cat', 'anim…dog', 'ant']
    >>> distinct(["Acer_autumn_leaf_front", "Acer_autumn_leaf_back", "Acer_spring_leaf_back"], 11)
    ['…autum…ront', '…autum…back', '…sprin…back']
    >>> distinct(["a_run_of_digits_2026-05-01", "a_run_of_digits_2026-05-02"], 12)
    ['…-05-01', '…-05-02']
    >>> distinct(["sign: 120 km/h", "sign: 20 km/h"], 9)
    ['…120 km/h', '…20 km/h']
    """
    start = _shared([name for name in names if len(name) > longest], longest // 2)
    ways: list[Callable[[str], str]] = [
        lambda name: both_ends(name, longest),
        lambda name: f"…{both_ends(name[start:], longest - 1)}",
        lambda name: f"…{name[len(name) + 1 - longest :]}",
        lambda name: cut(name, longest),
    ]
    if start >= longest:
        ways = [ways[1], ways[0], *ways[2:]]
    for way in ways:
        texts = [name if len(name) <= longest else way(name) for name in names]
        if len(set(texts)) == len(set(names)):
            return texts
    return None


def _shared(names: Sequence[str], kept: int) -> int:
    """How many letters different names share at their start, without the ``kept`` last ones of the shortest."""
    if len(set(names)) < 2:
        return 0
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return max(0, min(sum(1 for _ in same), min(map(len, names)) - kept))
