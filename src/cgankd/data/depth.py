"""How many bits 16-bit images use: cameras with 10, 12 or 14 bits write 16-bit files.

Read as full 16 bits, such images are almost black. The number of bits follows from the largest value of the data set,
so that all images are converted to 8 bits in the same way.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cgankd.core.errors import UserError
from cgankd.core.numbers import counted
from cgankd.data.listing import Kind, Peak

USUAL = (8, 10, 12, 14, 16)


class HasPeak(Protocol):
    """Images whose largest value is known."""

    def peak(self) -> Peak: ...


def bits_in_use(
    pictures: HasPeak, kinds: Counter[Kind], setting: int | None, where: str
) -> tuple[int, tuple[str, ...]]:
    """The number of bits that 16-bit images use (16 where there are no such images), and notes.

    setting: ``data.bits``. Raises UserError where a value exceeds it, where it is set but no image has 16 bits, and
    where fewer than 16 bits are used in files whose lower 8 bits can't be read.
    """
    deep = sum(count for kind, count in kinds.items() if kind.bits == 16)
    if not deep:
        if setting not in (None, 8):
            raise UserError(f"data.bits={setting}, but {where} has no image of 16 bits; leave data.bits out")
        return 16, ()
    if setting == 16:
        return 16, ()
    peak = pictures.peak()
    bits = setting or next(bits for bits in USUAL if peak.value < 2**bits)
    if bits < 16 and peak.coarse:
        raise UserError(
            f"{peak.place}: has 16 bits per colour, of which the set uses {bits}, and only the upper 8 can be read; "
            "allowed: 8 bits per colour, uint16 arrays in .npz or .h5, or data.bits=16 (use the values unchanged)"
        )
    if peak.value >= 2**bits:
        raise UserError(
            f"{peak.place}: holds the value {peak.value:,}; allowed: at most {2**bits - 1:,}, because data.bits={bits}"
        )
    how = "by data.bits" if setting else f"the largest value is {peak.value:,}; data.bits=16 uses all 16"
    used = counted(deep, "image of 16 bits uses", "images of 16 bits use")
    note = f"{used} {bits} of them ({how}): the value {2**bits - 1:,} became white"
    return bits, (note,) * (bits < 16)


def to_eight(deep: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Scale values of 0 to 2^bits - 1 to 0 to 255, rounded to the nearest whole number.

    >>> to_eight(np.array([0, 128, 129, 65535]), 16), to_eight(np.array([0, 2048, 4095]), 12)
    (array([  0,   0,   1, 255], dtype=uint8), array([  0, 128, 255], dtype=uint8))
    """
    top = 2**bits - 1
    return np.minimum((510 * deep.astype(np.int64) + top) // (2 * top), 255).astype(np.uint8)


def largest(peaks: list[Peak]) -> Peak:
    """The peak with the largest value; coarse where any peak is coarse."""
    top = max(peaks, key=lambda peak: peak.value)
    coarse = next((peak for peak in peaks if peak.coarse), None)
    return top if coarse is None else Peak(top.value, coarse.place, True)
