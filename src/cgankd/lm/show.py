"""The table of a run on text, and curves.png."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from cgankd.core.files import replacing
from cgankd.report.curves import Curve, curves
from cgankd.report.figures import LIGHT
from cgankd.report.table import count, number

COLOURS = {"sft": "ink", "kd": "orange", "atkd": "purple", "onpolicy": "blue", "skd": "green"}


def table(results: Mapping[str, Any]) -> Table:
    """Methods as rows; scores as mean ± standard deviation over seeds, and paired differences in bits per byte."""
    columns = ("method", "bits per byte", "difference to sft", "KL to teacher", "accepted")
    legend = (
        "Mean ± standard deviation over seeds. Bits per byte: of the test split, lower is better. Difference: paired "
        "by seed, with a 95% t interval. KL to teacher: in nats per token of the student's own text, lower is better. "
        "Accepted: the share of the student's tokens that the teacher accepts."
    )
    grid = Table(*columns, box=None, pad_edge=False, caption=legend, caption_justify="left")
    for row in results["rows"]:
        grid.add_row(
            row["method"],
            _score(row["bits_per_byte"], 3),
            _difference(row["bits_per_byte"]["difference"]),
            _score(row["kl"], 3),
            _score(row["acceptance"], 1, "%"),
        )
    return grid


def headline(results: Mapping[str, Any]) -> str:
    """Sizes and scores of the teacher, and of the student before its distillation."""
    teacher, student = results["teacher"], results["student"]
    return (
        f"teacher: {count(teacher['parameters'])} parameters, {number(teacher['bits_per_byte'], 3)} bits per byte; "
        f"student: {count(student['parameters'])}, {_score(student['bits_per_byte'], 3)} before distillation"
    )


def save_curves(results: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: bits per byte on the validation split against the step, a mean over seeds."""
    lines = []
    for row in results["rows"]:
        steps = [entry["step"] for entry in row["histories"][0]]
        values = [
            statistics.fmean(entry["val"] for entry in entries) for entries in zip(*row["histories"], strict=True)
        ]
        lines.append(Curve(row["method"], LIGHT[COLOURS[row["method"]]], steps, values))
    figure = curves(lines, "validation, bits per byte")
    if figure is not None:
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def _score(score: Mapping[str, Any], decimals: int, unit: str = "") -> str:
    scale = 100.0 if unit == "%" else 1.0
    spread = "" if score["std"] is None else f" ± {number(scale * score['std'], decimals)}"
    return f"{number(scale * score['mean'], decimals)}{spread} {unit}".rstrip()


def _difference(paired: Mapping[str, Any] | None) -> str:
    if paired is None:
        return "–"
    interval = ""
    if paired["low"] is not None:
        interval = f" [{number(paired['low'], 3, signed=True)}, {number(paired['high'], 3, signed=True)}]"
    return number(paired["mean"], 3, signed=True) + interval
