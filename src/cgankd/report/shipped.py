"""Which student ships: that of the row chosen by validation, or the same trained again on all labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgankd.core.numbers import counted


def chosen(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row that validation chose. None in results of older versions."""
    best = (results.get("best") or {}).get("row")
    return next((row for row in results["rows"] if row["method"] == best), None) if best else None


def shipped(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry of the student that ships, as those of the rows. None in results of older versions."""
    again = results.get("refit")
    return again if again and again["ships"] else chosen(results)


def labelled(entry: Mapping[str, Any]) -> int:
    """How many labelled images a row's student learnt from."""
    return int(entry["real_images"]) - int(entry.get("pseudo_labelled") or 0)


def trained_on(entry: Mapping[str, Any]) -> str:
    """The images that a row's student learnt from, in words.

    >>> trained_on({"real_images": 110, "pseudo_labelled": 50, "fake_images": 1200})
    '60 labelled images, 50 without labels and 1,200 generated ones'
    >>> trained_on({"real_images": 1})
    '1 labelled image'
    """
    unlabelled, generated = (int(entry.get(name) or 0) for name in ("pseudo_labelled", "fake_images"))
    further = [f"{unlabelled:,} without labels"] * bool(unlabelled)
    further += [counted(generated, "generated one", "generated ones")] * bool(generated)
    *first, last = [counted(labelled(entry), "labelled image", "labelled images"), *further]
    return f"{', '.join(first)} and {last}" if first else last


def all_labels(method: str) -> str:
    """The name of the table's line on a row's student that was trained again on all labels (``student.refit``)."""
    return f"{method}, all labels"


def footnotes(results: Mapping[str, Any]) -> list[str]:
    """What the mark in the table means."""
    if shipped(results) is None:
        return []
    several = len(results.get("seeds") or []) > 1
    again = results.get("refit")
    if again is None:
        seed = f", its best seed {results['best']['seed']}" if several else ""
        return [f"*: the student that ships{seed}, chosen by validation."]
    seed = f" and seed {again['seed']}" if several else ""
    what = f"row {again['method']}{seed}, chosen by validation, trained again on all {labelled(again):,} labels"
    if again["ships"]:
        return [f"*: the student that ships: {what}."]
    return [f"*: the student that ships, chosen by validation; not {what}, because it got worse."]
