"""What the table shows, in sentences: which rows are better or worse than the control, and which are neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cgankd.report import table
from cgankd.report.headline import headline


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """The main result, then one sentence for each verdict; none for a single seed, which has no intervals."""
    rows: dict[table.Verdict, list[Mapping[str, Any]]] = {}
    for row in results["rows"]:
        rows.setdefault(table.verdict(results, row), []).append(row)
    control = f"the control ({results.get('control')})"
    sentences = [headline(results).sentence]
    for verdict in ("better", "worse"):
        if verdict in rows:
            changes = _listed([_change(results, row) for row in rows[verdict]])
            sentences.append(f"{verdict.capitalize()} than {control}: {changes}.")
    if "undecided" in rows:
        names = _listed([str(row["method"]) for row in rows["undecided"]])
        sentences.append(f"No difference from {control} is shown for {names}: the 95% interval includes zero.")
    if "no interval" in rows and len(rows["no interval"][0]["values"]) > 1:
        names = _listed([str(row["method"]) for row in rows["no interval"]])
        sentences.append(f"No interval for {names}: the difference from {control} is the same for all seeds.")
    return sentences


def _change(results: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """``kd by 0.8 points``."""
    unit = table.difference_unit(results)
    size = table.number(abs(row["difference"]["mean"]), table.decimals(results))
    return f"{row['method']} by {size} {unit}".rstrip()


def _listed(texts: Sequence[str]) -> str:
    """
    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
