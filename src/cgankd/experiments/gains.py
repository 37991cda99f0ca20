"""What generated images add: every row that has them against the same row without, in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cgankd.metrics.statistics import count_signs, paired_difference
from cgankd.pipeline.comparisons import pairs, row
from cgankd.report.table import improvement

Record = Mapping[str, Any]


def gains(results: Record) -> list[dict[str, Any]]:
    """Of one run's results, per pair of rows: ``of`` (with generated images) minus ``to`` (the same without).

    Each with its difference paired by seed (:func:`cgankd.metrics.statistics.paired_difference`), and the number of
    seeds that got ``better`` and ``worse`` by it, whichever way the metric points.
    """
    values = {entry["method"]: entry["values"] for entry in results["rows"]}
    gained = []
    for of, to in pairs(values):
        difference = paired_difference(values[of], values[to])
        signs = count_signs([improvement(results, value) for value in difference["values"]])
        gained.append({"of": of, "to": to, **difference, "better": signs["better"], "worse": signs["worse"]})
    return gained


def by_method(tables: Sequence[Record]) -> list[dict[str, Any]]:
    """In how many cells each method gains by generated images; which of two is better has no unit."""
    differences: dict[str, list[float]] = {}
    names: dict[str, tuple[str, str]] = {}  # in the first cell
    for table, gain in _all(tables):
        method = row(gain["of"]).method
        differences.setdefault(method, []).append(improvement(table, gain["mean"]))
        names.setdefault(method, (gain["of"], gain["to"]))
    return [{"of": names[method][0], "to": names[method][1], **count_signs(d)} for method, d in differences.items()]


def by_task(tables: Sequence[Record]) -> list[dict[str, Any]]:
    """For each task, how many pairs of all methods and cells gain: one count per pair, its mean over the seeds.

    ``seeds`` counts the single seeds too.
    """
    counts = []
    for task in dict.fromkeys(table["task"] for table in tables):
        own = [table for table in tables if table["task"] == task]
        gained = list(_all(own))
        seeds = {which: sum(gain[which] for _, gain in gained) for which in ("better", "worse")}
        counts.append(
            {
                "task": task,
                "recipes": [table["recipe"] for table in own],
                **count_signs([improvement(table, gain["mean"]) for table, gain in gained]),
                "seeds": {"pairs": sum(len(gain["values"]) for _, gain in gained), **seeds},
            }
        )
    return counts


def _all(tables: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    """Each gain with its table."""
    for table in tables:
        for cell in table["cells"]:
            for gain in cell["gains"]:
                yield table, gain
