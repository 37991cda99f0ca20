"""Fonts for figures: finds installed fonts with the characters that matplotlib's own font lacks.

Text in an SVG file stays text, and the reader's fonts show it. Text in a PNG file is drawn here.
"""

from __future__ import annotations

import contextlib
import functools
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

OWN = "DejaVu Sans"  # comes with matplotlib
INVISIBLE = "\u200d\u200e\u200f\ufe0e\ufe0f"  # joiners, and marks of direction and of style
UNDRAWABLE = ("color emoji", "colour emoji", "lastresort", "last resort")  # these draw bitmaps, or boxes
SHAPED = (3, 11)  # the first version of matplotlib that joins Arabic letters and draws text from right to left
RIGHT_TO_LEFT = {"R", "AL"}


def can_show(text: str) -> bool:
    """Whether the installed fonts have every character of ``text``, and matplotlib draws them in reading order."""
    return not _unreadable(text) and not _lacking(text, families(text))


def families(text: str) -> list[str]:
    """The fonts that ``text`` needs, matplotlib's own first; a character that is in no font is ignored."""
    return [OWN, *_further(frozenset(_lacking(text, [OWN])))]


def fit(figure: Figure) -> None:
    """Give every text of the figure the fonts that it needs; characters that are in no font become Python escapes."""
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        text = artist.get_text()
        if not text or text.isascii():
            continue
        artist.set_fontfamily(families(text))
        if not can_show(text):
            artist.set_text("".join(letter if can_show(letter) else _escaped(letter) for letter in text))


@contextlib.contextmanager
def left_to_the_reader() -> Iterator[None]:
    """A block without matplotlib's warnings about missing characters, for figures whose text stays text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(Glyph|Matplotlib currently does not support)")
        yield


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _unreadable(text: str) -> bool:
    joined = any(unicodedata.bidirectional(letter) in RIGHT_TO_LEFT for letter in text)
    return joined and tuple(map(int, mpl.__version__.split(".")[:2])) < SHAPED


def _lacking(text: str, names: Iterable[str]) -> set[str]:
    """The characters of ``text`` that none of these fonts has."""
    needed = {letter for letter in text if not letter.isascii() and letter not in INVISIBLE}
    for name in names:
        needed -= _covered(_installed()[name], needed)
    return needed


@functools.lru_cache(maxsize=256)
def _further(needed: frozenset[str]) -> tuple[str, ...]:
    """Installed fonts that together have as many of these characters as possible."""
    chosen: list[str] = []
    left = set(needed)
    for name, path in _installed().items() if left else ():
        if covered := _covered(path, left):
            chosen.append(name)
            left -= covered
        if not left:
            break
    return tuple(chosen)


@functools.lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    """Name -> file of the upright fonts of regular weight, Noto fonts first.

    Of matplotlib's own fonts only OWN is included, because the others are for formulas and have characters at unusual
    code points.
    """
    upright: dict[str, str] = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (abs(_weight(entry) - 400), entry.fname)):
        drawable = not any(word in entry.name.lower() for word in UNDRAWABLE)
        for_formulas = Path(entry.fname).is_relative_to(mpl.get_data_path()) and entry.name != OWN
        if entry.style == "normal" and drawable and not for_formulas:
            upright.setdefault(entry.name, entry.fname)
    return dict(sorted(upright.items(), key=lambda item: ("noto" not in item[0].lower(), item[0])))


def _weight(entry: font_manager.FontEntry) -> int:
    return entry.weight if isinstance(entry.weight, int) else 400


def _covered(path: str, letters: Iterable[str]) -> set[str]:
    """The letters that the font in ``path`` has."""
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):  # the file was removed after matplotlib listed it, or is not readable
        return set()
    return {letter for letter in letters if font.get_char_index(ord(letter))}
