"""What a run on text shows: its table, and curves.png."""

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


def table(found: Mapping[str, Any]) -> Table:
    """Methods as rows; scores as mean ± spread over seeds, and the paired difference in bits per byte."""
    columns = ("method", "bits per byte", "difference to sft", "KL to teacher", "accepted")
    legend = (
        "Bits: on the test split, less is better; mean ± standard deviation over seeds, differences paired by seed "
        "with a 95% t interval. KL to the teacher in nats, less is better, and accepted, the share of tokens that "
        "the teacher lets stay: on the student's own text."
    )
    shown = Table(*columns, box=None, pad_edge=False, caption=legend, caption_justify="left")
    for row in found["rows"]:
        shown.add_row(
            row["method"],
            _score(row["bits_per_byte"], 3),
            _difference(row["bits_per_byte"]["difference"]),
            _score(row["kl"], 3),
            _score(row["acceptance"], 1, "%"),
        )
    return shown


def headline(found: Mapping[str, Any]) -> str:
    """Sizes and scores of the teacher and of the student before its distillation."""
    teacher, student = found["teacher"], found["student"]
    return (
        f"teacher: {count(teacher['parameters'])} parameters, {number(teacher['bits_per_byte'], 3)} bits per byte; "
        f"student: {count(student['parameters'])}, {_score(student['bits_per_byte'], 3)} before"
    )


def save_curves(found: Mapping[str, Any], path: Path) -> None:
    """Bits per byte on the validation split against the step, a mean over seeds; a PNG."""
    lines = []
    for row in found["rows"]:
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


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    interval = ""
    if found["low"] is not None:
        interval = f" [{number(found['low'], 3, signed=True)}, {number(found['high'], 3, signed=True)}]"
    return number(found["mean"], 3, signed=True) + interval
