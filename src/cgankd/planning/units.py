"""The unit of a scalar label, where the name of its column says it: angle_deg, age (years), yaw [degrees]."""

from __future__ import annotations

import math
import re

# The unit -> how column names write it. In the name's last word single letters say nothing: class_s, label_m.
SPELLINGS = {
    "degrees": "deg degs degree degrees °",
    "radians": "rad rads radian radians",
    "years": "y yr yrs year years",
    "months": "month months",
    "weeks": "week weeks",
    "days": "d day days",
    "hours": "h hr hrs hour hours",
    "minutes": "min mins minute minutes",
    "seconds": "s sec secs second seconds",
    "ms": "ms msec millisecond milliseconds",
    "px": "px pixel pixels",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms",
    "km/h": "km/h kmh kph",
    "m/s": "m/s mps",
    "mph": "mph",
    "°C": "°c celsius degc",
    "%": "% percent pct",
}
UNITS = {word: unit for unit, words in SPELLINGS.items() for word in words.split()}
IN_BRACKETS = re.compile(r"[(\[{]\s*([^()\[\]{}]+?)\s*[)\]}]\s*$")
UNKNOWN = re.compile(r"(?=.*[^\W\d_]|.*[%°])([^\W_]|[%°/]){1,10}")  # in brackets, that may be a unit: bar, kg/m2
# What stands in brackets too, but is no unit.
REMARKS = {
    "new", "old", "raw", "mean", "avg", "average", "median", "max", "total", "left", "right", "true", "est", "int",
    "float", "class", "label",
}  # fmt: skip
EXAMPLES = {360.0: "degrees", 2.0 * math.pi: "radians", 24.0: "hours"}  # period -> the unit that it suggests


def unit_in(name: str) -> str | None:
    """The unit that a column's name ends with, in brackets any that is short; None where it names none.

    >>> [unit_in(name) for name in ("angle_deg", "age (years)", "yawDegrees", "width [m]", "pressure (mbar)")]
    ['degrees', 'years', 'degrees', 'm', 'mbar']
    >>> [unit_in(name) for name in ("label", "class_s", "label (new)")]
    [None, None, None]
    """
    if brackets := IN_BRACKETS.search(name):
        text = brackets[1]
        unknown = text if UNKNOWN.fullmatch(text) and text.casefold() not in REMARKS else None
        return UNITS.get(text.casefold(), unknown)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    last = re.split(r"[\s_.:,-]+", words.strip())[-1].casefold()
    return UNITS.get(last) if len(last) > 1 else None


def example(period: float | None) -> str:
    """A unit that may be that of a label with this period (None: it does not wrap), for a hint."""
    return EXAMPLES.get(period or 0.0, "years")
