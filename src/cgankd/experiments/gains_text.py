"""What generated images add, as Markdown: a line per method and cell, counts, and the methods that don't gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cgankd.core.numbers import counted
from cgankd.report import markdown
from cgankd.report import table as style

Record = Mapping[str, Any]

DEPENDENT = (
    "A pair is one method in one cell, compared by the means over the seeds. The methods of a cell share the teacher, "
    "the generated images and their initial weights. So these are counts, not a test of significance."
)


def gains_table(table: Record, places: int) -> str:
    """One table's gains by method, with columns for student and setting if there are several.

    places: number of decimals.
    """
    pairs = [(gain, cell) for cell in table["cells"] for gain in cell["gains"]]
    several = [which for which in ("student", "setting") if len(table[f"{which}s"]) > 1]
    unit = style.difference_unit(table)
    columns = ["X", *several, "X alone", "cGAN-KD + X", f"difference{f', {unit}' if unit else ''} [95% interval]"]
    lines = [[*columns, "better in"]]
    for gain, cell in sorted(pairs, key=lambda pair: (pair[0]["of"] != "cgan", style.compared(pair[0]["of"]))):
        means = {row["method"]: row for row in cell["rows"]}
        lines.append(
            [
                style.compared(gain["of"]),
                *(cell[which] or "–" for which in several),
                *(style.mean_and_spread(means[gain[which]], places) for which in ("to", "of")),
                style.difference(gain, places),
                f"{gain['better']} of {counted(len(gain['values']), 'seed', 'seeds')}",
            ]
        )
    return markdown.grid(lines)


def counts(record: Record) -> list[str]:
    """Sentences on the counts of table.json: per task, and per method in several cells."""
    sentences = [_of_task(count) for count in record["tasks"] if count["pairs"]]
    if not sentences:
        return ["No method was compared alone and with generated images."]
    several = [count for count in record["methods"] if count["pairs"] > 1]  # a single pair is in the table above
    if several:
        parts = [f"{count['of']} {count['better']} of {count['pairs']}" for count in several]
        sentences.append(f"By method, better in: {', '.join(parts)}.")
    return [*sentences, DEPENDENT]


def unhelped(tables: Sequence[Record], places: Sequence[int]) -> list[str]:
    """The pairs whose mean is not better with generated images, the worst of each table first."""
    sentences = []
    for table, decimals in zip(tables, places, strict=True):
        unit = style.difference_unit(table)
        pairs = [(gain, cell) for cell in table["cells"] for gain in cell["gains"]]
        gained = [style.improvement(table, gain["mean"]) for gain, _ in pairs]
        for place in sorted((at for at, value in enumerate(gained) if value <= 0), key=gained.__getitem__):
            gain, cell = pairs[place]
            where = ", ".join(part for part in (table["recipe"], cell["student"], cell["setting"]) if part)
            better = f"better in {gain['better']} of {counted(len(gain['values']), 'seed', 'seeds')}"
            gained_by = style.difference(gain, decimals, unit)
            sentences.append(f"{where}: {style.compared(gain['of'])}, {gained_by}, {better}")
    return sentences


def _of_task(count: Record) -> str:
    seeds = count["seeds"]
    equal = count["pairs"] - count["better"] - count["worse"]
    level = f", {equal} equal" if equal else ""
    pairs = counted(count["pairs"], "pair", "pairs")
    return (
        f"{count['task']} ({', '.join(count['recipes'])}), cGAN-KD + X against X: {pairs}, {count['better']} better, "
        f"{count['worse']} worse{level}. By seed: {seeds['better']} of {seeds['pairs']} better, {seeds['worse']} worse."
    )
