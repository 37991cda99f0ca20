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
from cgankd.report.table import count, difference, mean_and_spread, number

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
            mean_and_spread(row["bits_per_byte"], 3),
            _difference(row["bits_per_byte"]["difference"]),
            mean_and_spread(row["kl"], 3),
            _percent(row["acceptance"]),
        )
    return grid


def headline(results: Mapping[str, Any]) -> str:
    """Sizes and scores of the teacher, and of the student before its distillation."""
    teacher, student = results["teacher"], results["student"]
    return (
        f"teacher: {count(teacher['parameters'])} parameters, {number(teacher['bits_per_byte'], 3)} bits per byte; "
        f"student: {count(student['parameters'])}, {mean_and_spread(student['bits_per_byte'], 3)} before distillation"
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


def _percent(share: Mapping[str, Any]) -> str:
    hundredfold = {name: None if share[name] is None else 100.0 * share[name] for name in ("mean", "std")}
    return f"{mean_and_spread(hundredfold, 1)} %"


def _difference(paired: Mapping[str, Any] | None) -> str:
    if paired is None:
        return "–"
    return number(paired["mean"], 3, signed=True) if paired["low"] is None else difference(paired, 3)
