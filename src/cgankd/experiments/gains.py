"""What generated images add: every row with generated images compared with the same row without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cgankd.metrics.statistics import count_signs, paired_difference
from cgankd.pipeline.comparisons import Row, pairs, row
from cgankd.report.table import improvement

Record = Mapping[str, Any]


def gains(results: Record) -> list[dict[str, Any]]:
    """For each pair of rows of a run: the score of ``of`` (with generated images) minus that of ``to`` (without).

    Each entry has the difference paired by seed (:func:`cgankd.metrics.statistics.paired_difference`), and the number
    of seeds that became ``better`` and ``worse``, also for metrics where lower is better.
    """
    values = {entry["method"]: entry["values"] for entry in results["rows"]}
    gained = []
    for of, to in pairs(values):
        difference = paired_difference(values[of], values[to])
        signs = count_signs([improvement(results, value) for value in difference["values"]])
        gained.append({"of": of, "to": to, **difference, "better": signs["better"], "worse": signs["worse"]})
    return gained


def by_method(tables: Sequence[Record]) -> list[dict[str, Any]]:
    """The number of cells in which each method gains by generated images; counts can mix metrics of different units."""
    differences: dict[Row, list[float]] = {}
    names: dict[Row, tuple[str, str]] = {}  # in the first cell
    for table, gain in _all(tables):
        method = row(gain["of"])
        differences.setdefault(method, []).append(improvement(table, gain["mean"]))
        names.setdefault(method, (gain["of"], gain["to"]))
    return [{"of": names[method][0], "to": names[method][1], **count_signs(d)} for method, d in differences.items()]


def by_task(tables: Sequence[Record]) -> list[dict[str, Any]]:
    """For each task, how many pairs of all methods and cells gain, by their means over the seeds.

    ``seeds`` counts single seeds instead of means.
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
    """All pairs of a table and one of its gains."""
    for table in tables:
        for cell in table["cells"]:
            for gain in cell["gains"]:
                yield table, gain
