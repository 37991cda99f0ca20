"""What generated images add: every row that has them against the same row without, in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scipy import stats

from cgankd.metrics.statistics import paired_difference
from cgankd.pipeline.comparisons import pairs, row
from cgankd.report.table import improvement

Made = dict[str, Any]


def gains(found: Made) -> list[Made]:
    """Of one run's results, per pair of rows: ``of`` (with generated images) minus ``to`` (the same without).

    Each with its difference paired by seed, as :func:`cgankd.metrics.statistics.paired_difference` has it, and the
    number of seeds that got ``better`` and ``worse`` by it, whichever way the metric points.
    """
    values = {made["method"]: made["values"] for made in found["rows"]}
    gained = []
    for of, to in pairs(values):
        difference = paired_difference(values[of], values[to])
        test = sign_test([improvement(found, value) for value in difference["values"]])
        gained.append({"of": of, "to": to, **difference, "better": test["better"], "worse": test["worse"]})
    return gained


def by_method(tables: Sequence[Made]) -> list[Made]:
    """A sign test for each method over all cells that have it both ways; which of two is better has no unit."""
    votes: dict[str, list[float]] = {}
    names: dict[str, tuple[str, str]] = {}  # in the first cell
    for made, gain in _all(tables):
        method = row(gain["of"]).method
        votes.setdefault(method, []).append(improvement(made, gain["mean"]))
        names.setdefault(method, (gain["of"], gain["to"]))
    return [{"of": names[one][0], "to": names[one][1], **sign_test(found)} for one, found in votes.items()]


def by_task(tables: Sequence[Made]) -> list[Made]:
    """A sign test for each task over all methods and cells: one vote per method and cell, its mean over the seeds.

    ``seeds`` counts the single seeds, which are no votes: those of one method share a teacher and a generator.
    """
    tests = []
    for task in dict.fromkeys(made["task"] for made in tables):
        own = [made for made in tables if made["task"] == task]
        found = list(_all(own))
        seeds = {which: sum(gain[which] for _, gain in found) for which in ("better", "worse")}
        tests.append(
            {
                "task": task,
                "recipes": [made["recipe"] for made in own],
                **sign_test([improvement(made, gain["mean"]) for made, gain in found]),
                "seeds": {"pairs": sum(len(gain["values"]) for _, gain in found), **seeds},
            }
        )
    return tests


def sign_test(differences: Sequence[float]) -> Made:
    """Are positive and negative differences equally likely? Two-sided exact test; zeros are left out.

    >>> sign_test([0.3, 0.1, 2.0, -0.2])["p"]
    0.625
    """
    better = sum(difference > 0 for difference in differences)
    worse = sum(difference < 0 for difference in differences)
    counted = better + worse
    p = float(stats.binomtest(better, counted, 0.5).pvalue) if counted else None
    return {"pairs": len(differences), "better": better, "worse": worse, "p": p}


def _all(tables: Sequence[Made]) -> Iterator[tuple[Made, Made]]:
    """Each gain with its table."""
    for made in tables:
        for cell in made["cells"]:
            for gain in cell["gains"]:
                yield made, gain
