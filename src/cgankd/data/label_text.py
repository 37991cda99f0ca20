"""A column of text labels: class names, or numbers and their form.

Numbers are 7, -1.5 or 1e-3. A decimal comma (3,5), one unit after all numbers (12.5 mm) and one currency before them
($12.50) are also read. Labels that could be read in two ways are an error that names both.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Sequence

from cgankd.core.errors import UserError, first_of
from cgankd.core.numbers import NOT_FINITE, NUMBER, WHOLE, counted, number

COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # 1,500 is 1500 to some and 1.5 to others
WITH_UNIT = re.compile(r"([+-]?(?:[0-9]+(?:[.,][0-9]*)?|\.[0-9]+))\s*([^\W\d_]|[^\w\s.,;:+*/\\'\"()-])([^\d.,]*)")
MONEY = "$€£¥₩₹₺₽₪₫₴฿¢"
# By name, because USB 2.0 and BMW 3 are no prices
CURRENCIES = (
    "AED|ARS|AUD|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|HKD|HUF|IDR|ILS|INR|JPY|KRW|MXN|MYR|NGN|NOK|NZD|PEN|PHP|"
    "PKR|PLN|RON|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR"
)
WITH_CURRENCY = re.compile(rf"([+-]?)([A-Z]{{0,3}}[{MONEY}]|(?:{CURRENCIES})(?=\s))\s*([0-9]+(?:[.,][0-9]*)?|\.[0-9]+)")
# A decimal in a form that is not read, with ASCII digits: 1.234,5 or 1 234.5 or 1'234.5
FOREIGN_DECIMAL = re.compile(r"[+-]?[0-9]{1,3}([ .,'’_][0-9]{3})*[.,][0-9]+")
FOREIGN_WHOLE = re.compile(r"[+-]?[1-9][0-9]{0,2}([ '’][0-9]{3})+")  # 1 234
MISSING = {"nan", "na", "n/a", "null", "none", "nil", "-", "?"}  # how programs write that a label is missing
DASHES = str.maketrans({"−": "-", "\N{HYPHEN}": "-", "\N{NON-BREAKING HYPHEN}": "-", "\N{EN DASH}": "-"})
PLAIN = "plain numbers such as 1234.5"
NEARLY_ALL = 0.95  # of the labels; where so many are numbers, the others are probably mistakes
SHOWN = 5  # groups of similar names that a note lists
AS_NUMBERS = "data.task=regression to read them as numbers"
AS_CLASSES = "data.task=classification for class names"


def clean(text: str) -> str:
    """A label without space around it, in Unicode's NFC form (macOS writes é as two characters in file names)."""
    return unicodedata.normalize("NFC", text.strip())


@dataclasses.dataclass(frozen=True)
class Column:
    """How N labels were read.

    values: each label as a number; None where it is not one. kind: what the labels are where data.task is auto;
    "unclear": they may be numbers or names; "odd": nearly all are whole numbers, but not those
    in the rows ``odd``. why: the reason, for a note or an error.
    """

    values: list[float | None]
    kind: str  # classification, regression, mixed (words and decimals) or unclear
    why: str
    unit: str = ""
    notes: tuple[str, ...] = ()
    row: int = 0  # the row that an error names
    odd: tuple[int, ...] = ()


def read(texts: Sequence[str], place: Callable[[int], str]) -> Column:
    """Read a column of cleaned labels. Raises UserError, naming the row, for an empty label."""
    if rows := [row for row, text in enumerate(texts) if not text]:
        raise no_label(rows, place)
    units = _units(texts)
    bare = texts if units is None else [_split_unit(text)[0] for text in texts]
    unit = units or ""
    if any(COMMA.fullmatch(text) for text in bare) and all(COMMA.fullmatch(t) or WHOLE.fullmatch(t) for t in bare):
        return _with_commas(bare, unit)
    values = [number(text) for text in bare]
    decimals = [row for row, text in enumerate(bare) if NUMBER.fullmatch(text) and not re.fullmatch(r"[+-]?\d+", text)]
    if unit:
        kind = "unclear" if decimals else "classification"
        why = f"{'' if decimals else 'whole '}numbers with the unit {unit!r}"
        return Column(values, kind, why, unit, row=decimals[0] if decimals else 0)
    return _plain(texts, values, decimals)


def _plain(texts: Sequence[str], values: list[float | None], decimals: list[int]) -> Column:
    """Labels without units and decimal commas."""
    words = [row for row, value in enumerate(values) if value is None and not NOT_FINITE.fullmatch(texts[row])]
    foreign = [row for row in words if _foreign(texts[row])]
    all_foreign = bool(foreign) and len(foreign) == len(words)
    fractions = [row for row in foreign if not _foreign_whole(texts[row])]
    if all_foreign and (decimals or fractions):
        return Column(values, "unclear", "numbers in a form that is not read", row=(fractions or foreign)[0])
    if words:
        missing = [text for text in texts if text.casefold() in MISSING]
        notes: tuple[str, ...] = ()
        if missing:
            are = counted(len(missing), "label is", "labels are")
            notes = (f"{are} {missing[0]!r}, which is read as a class; remove these rows if their label is missing",)
        if not decimals and len(words) <= (1.0 - NEARLY_ALL) * len(texts):
            return Column(values, "odd", "words", notes=notes, odd=tuple(words))
        if all_foreign:
            why = f"{texts[foreign[0]]!r} is not read as a number, which plain ones such as 1234 or -3 are"
            return Column(values, "classification", why)
        return Column(values, "mixed" if decimals else "classification", "words", notes=notes)
    if decimals or any(value is None for value in values):
        return Column(values, "regression", "decimals")
    if all(WHOLE.fullmatch(text) for text in texts):
        return Column(values, "classification", "whole numbers")
    return Column(values, "classification", "numbers with zeros or a sign before them, by their text")


def _with_commas(texts: Sequence[str], unit: str) -> Column:
    """Labels that are whole or have one comma."""
    values = [number(text.replace(",", ".")) for text in texts]
    first = next(row for row, text in enumerate(texts) if "," in text)
    if all(WHOLE.fullmatch(text) or THOUSANDS.fullmatch(text) for text in texts):
        why = "the comma may separate thousands or decimals"
        return Column([None] * len(texts), "unclear", why, row=first)
    note = f"the comma in labels was read as a decimal point ({texts[first]} is {values[first]:g})"
    kind = "unclear" if unit else "regression"
    return Column(values, kind, "decimals with a comma", unit, (note,), row=first)


def _units(texts: Sequence[str]) -> str | None:
    """The unit after all labels, or the currency before them; None where there is none, or more than one."""
    units = {_split_unit(text)[1] for text in texts}
    return units.pop() if len(units) == 1 and "" not in units else None


def _split_unit(text: str) -> tuple[str, str]:
    if (match := WITH_CURRENCY.fullmatch(text)) is not None:
        return match[1] + match[3], match[2]
    match = WITH_UNIT.fullmatch(text)
    if match is None or NUMBER.fullmatch(text):
        return text, ""
    return match[1], match[2] + match[3]


def _foreign(text: str) -> bool:
    """Whether people would read the text as a number, although its form is not read here.

    Whole numbers of other digits than 0 to 9 are names.
    """
    bare = _bare(text)
    plain = number(bare) is not None and not re.fullmatch(r"[+-]?\d+", bare)
    return plain or FOREIGN_DECIMAL.fullmatch(bare) is not None or _foreign_whole(text)


def _foreign_whole(text: str) -> bool:
    """The same for whole numbers: 1 234, $5, or −3 with Unicode's minus."""
    bare = _bare(text)
    other = bare != unicodedata.normalize("NFKC", text) and re.fullmatch(r"[+-]?\d+", bare)
    return bool(other) or FOREIGN_WHOLE.fullmatch(bare) is not None


def _bare(text: str) -> str:
    """The text with ASCII digits, blanks and minus, without signs of currencies."""
    return re.sub(rf"[{MONEY}]", "", unicodedata.normalize("NFKC", text).translate(DASHES)).strip()


def no_label(rows: Sequence[int], place: Callable[[int], str]) -> UserError:
    """The error for empty labels, in ``rows``."""
    places = [place(row) for row in rows]
    where = places[0].rpartition(" ")[0]
    numbers = [text.removeprefix(f"{where} ") for text in places]
    if len(rows) > 1 and where.endswith((" line", " row")) and all(text.isdigit() for text in numbers):  # of one table
        last = numbers[-1] if len(rows) <= SHOWN else f"{len(rows) - SHOWN:,} more"
        found = f"{where}s {', '.join(numbers[:-1][:SHOWN])} and {last}: the label is empty"
    else:
        found = f"{places[0]}: the label is empty" + f" (and {len(rows) - 1:,} more)" * (len(rows) > 1)
    return UserError(
        f"{found}; allowed: a number or a class name; remove entries without a label (data.unlabelled=FOLDER uses such "
        "images)"
    )


def odd_labels(column: Column, texts: Sequence[str], place: Callable[[int], str]) -> UserError:
    """The error for a column of numbers with a few words among them."""
    named = first_of([f"{texts[row]!r} ({place(row)})" for row in column.odd], most=3)
    count, total = len(column.odd), len(texts)
    what = counted(count, "label is not a number", "labels are not numbers")
    return UserError(
        f"{what}, although {total - count:,} of {total:,} are: {named}; allowed: numbers in all rows, or "
        "data.task=classification to read all labels as class names"
    )


def question(column: Column, texts: Sequence[str], place: Callable[[int], str]) -> UserError:
    """The error for a column that may be numbers or names."""
    allowed = AS_NUMBERS if all(value is not None for value in column.values) else PLAIN
    return UserError(
        f"{place(column.row)}: labels such as {texts[column.row]!r} may be numbers or names ({column.why}); allowed: "
        f"{allowed}, or {AS_CLASSES}"
    )


def not_a_number(text: str, where: str, column: Column) -> UserError:
    """The error for a label that can't be a scalar."""
    if NOT_FINITE.fullmatch(text):
        return UserError(f"{where}: label {text} is not finite; allowed: finite numbers")
    reason = f" ({column.why})" if column.kind == "unclear" else " in a form that is read" if _foreign(text) else ""
    return UserError(f"{where}: label {text!r} is not a number{reason}; allowed: {PLAIN}, or {AS_CLASSES}")


def look_alikes(names: Sequence[str]) -> tuple[str, ...]:
    """A note for class names that look alike: they differ only in case, width or zeros."""
    alike: dict[object, list[str]] = {}
    for name in names:
        folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        value = number(folded)
        alike.setdefault(folded if value is None else value, []).append(name)
    groups = [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
    more = f" and {len(groups) - SHOWN:,} more" if len(groups) > SHOWN else ""
    note = f"classes whose names look alike were not merged: {', '.join(groups[:SHOWN])}{more}"
    return (note,) * bool(groups)
