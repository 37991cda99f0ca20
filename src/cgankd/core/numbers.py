"""Numbers as people write them; Python's float() also reads 0_9, full-width digits and words such as "infinity"."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

WHOLE = re.compile(r"0|-?[1-9][0-9]*")  # 007, +7 and -0 are text, because an int loses how they were written
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
PARTS = ("all", "half", "a third", "a quarter", "a fifth", "a sixth", "a seventh", "an eighth", "a ninth", "a tenth")
MOST_DECIMALS = 7  # more would hide a number's digits behind zeros
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def number(text: str) -> float | None:
    """The text as a number; None where it is not one. Decimals have a point, digits are 0 to 9.

    >>> number("-1.5e3"), number(" 007 "), number("0_9"), number("3,5"), number("nan")
    (-1500.0, 7.0, None, None, None)
    """
    return float(text) if NUMBER.fullmatch(text.strip()) else None


def distinct_texts(numbers: Sequence[float]) -> list[str]:
    """The numbers as text with six digits, or with the fewest from ten on that make different numbers look different.

    >>> distinct_texts([0.0, 90.0]), distinct_texts([1700000000.5, 1700000020.5])
    (['0', '90'], ['1700000000', '1700000020'])
    """
    texts = ([f"{value:.{digits}g}" for value in numbers] for digits in (6, *range(10, 18)))
    return next(text for text in texts if len(set(text)) == len(set(numbers)))


def counted(count: int, one: str, more: str) -> str:
    """The number with the words for one, or those for any other number.

    >>> counted(1, "image was", "images were"), counted(1200, "image was", "images were")
    ('1 image was', '1,200 images were')
    """
    return f"{count:,} {one if count == 1 else more}"


def as_part(share: float) -> str:
    """About how large a share of something is, for what may itself be in per cent.

    >>> as_part(0.21), as_part(0.076), as_part(0.9)
    ('a fifth', '1/13', 'all')
    """
    parts = max(1, round(1 / share))
    return PARTS[parts - 1] if parts <= len(PARTS) else f"1/{parts}"


def written(value: float, decimals: int) -> str:
    """A number with these decimals. Below 0, or above ``MOST_DECIMALS``, as a power of ten with the same digits.

    >>> written(0.5, 2), written(4.052e-7, 9), written(7.8e-8, 9), written(361_106_034.5, -6), written(0.0, 9)
    ('0.50', '4.05e-07', '7.8e-08', '3.61e+08', '0')
    """
    if 0 <= decimals <= MOST_DECIMALS:
        return f"{value:.{decimals}f}"
    rounded = round(value, decimals)
    digits = max(0, decimals + math.floor(math.log10(abs(rounded)))) if rounded else 0
    return f"{rounded:.{digits}e}" if rounded else "0"
