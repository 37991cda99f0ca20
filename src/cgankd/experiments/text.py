"""A table as text: Markdown for people, like the paper's tables, and CSV for programs, one line per cell and row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from cgankd.experiments import gains_text
from cgankd.report import markdown
from cgankd.report import table as style

TEACHER = "teacher"

FIELDS = (
    "recipe", "dataset", "setting", "student", "method", "network", "parameters", "steps", "real_images",
    "fake_images", "metric", "unit", "seeds", "values", "mean", "std", "gain_over", "gain", "gain_low", "gain_high",
    "gain_seeds_better",
)  # fmt: skip

Record = Mapping[str, Any]


def as_markdown(content: Record) -> str:
    """For each recipe a table of scores and a table of gains; then counts of gains, and the methods that don't gain.

    content: of table.json. Missing cells are listed at the end. Ends with a newline.
    """
    tables = content["tables"]
    places = [_decimals(table) for table in tables]
    parts = [part for table, decimals in zip(tables, places, strict=True) for part in _one_recipe(table, decimals)]
    parts += ["## How many gain", markdown.bullets(gains_text.counts(content["counts"]))]
    if unhelped := gains_text.unhelped(tables, places):
        parts += ["## Not better with generated images", markdown.bullets(unhelped)]
    if content["left_out"]:
        parts += ["## Left out of `all`", markdown.bullets(content["left_out"])]
    if content["missing"]:
        parts.append(f"**Not finished**: {len(content['missing'])} missing (…); the same command continues:")
        parts.append(markdown.bullets(content["missing"]))
    return "\n\n".join(parts) + "\n"


def comma_separated(content: Record) -> str:
    """CSV with a header and one line per cell and row, also for the teacher; numbers at full precision.

    content: of table.json. ``seeds`` and ``values`` are lists separated by spaces; fields that don't apply are empty.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for table in content["tables"]:
        for cell in table["cells"]:
            gains = {gain["of"]: gain for gain in cell["gains"]}
            for row in [*({**row, "network": cell["student"]} for row in cell["rows"]), _teacher(cell)]:
                gain = gains.get(row["method"], {})
                known = {
                    **{key: table[key] for key in ("recipe", "dataset", "metric", "unit")},
                    **{key: cell[key] for key in ("setting", "student")},
                    **{key: row[key] for key in FIELDS if key in row},
                    "seeds": " ".join(str(seed) for seed in cell["seeds"]),
                    "values": " ".join(repr(value) for value in row["values"]),
                    "gain_over": gain.get("to"),
                    "gain": gain.get("mean"),
                    "gain_low": gain.get("low"),
                    "gain_high": gain.get("high"),
                    "gain_seeds_better": gain.get("better"),
                }
                writer.writerow(known)
    return stream.getvalue()


def _one_recipe(table: Record, places: int) -> list[str]:
    parts = [
        f"## {markdown.literal(table['recipe'])}: {markdown.literal(table['dataset'])}",
        f"{markdown.literal(style.metric_with_unit(table))} on the test split, mean ± standard deviation over seeds",
        _scores(table, places),
        markdown.bullets([*_notes(table), *_warnings(table)]),
    ]
    if any(cell["gains"] for cell in table["cells"]):
        parts += [
            "### What generated images add",
            "Each method on real images alone, and on real and generated ones; differences are paired by seed.",
            gains_text.gains_table(table, places),
        ]
    return parts


def _scores(table: Record, places: int) -> str:
    """One line per row, the teacher last, and one column per cell, finished or not."""
    cells = {(cell["student"], cell["setting"]): cell for cell in table["cells"]}
    columns = [(setting, student) for setting, student in table["columns"]]
    students = ["", *(student for _, student in columns)]
    # Each setting is above its first student.
    before = ["", *(setting for setting, _ in columns)]
    settings = ["", *("" if one == last else one for (one, _), last in zip(columns, before, strict=False))]
    lines = [settings, students] if any(settings) else [students]
    lines[0][0] = "method"
    scores = {
        at: {row["method"]: style.mean_and_spread(row, places) for row in [*cell["rows"], _teacher(cell)]}
        for at, cell in cells.items()
    }
    networks = dict.fromkeys(cell["teacher"]["network"] for cell in table["cells"])
    for method in [*table["methods"], TEACHER]:
        line = [f"{TEACHER} {', '.join(networks)}" if method == TEACHER else method]
        for setting, student in columns:
            by_method = scores.get((student, setting))
            line.append("…" if by_method is None else by_method.get(method, "–"))
        lines.append(line)
    return markdown.grid(lines)


def _teacher(cell: Record) -> Record:
    return {"method": TEACHER, **cell["teacher"]}


def _decimals(table: Record) -> int:
    """The number of decimals of a table, by its scores; not by its gains, because some of many are nearly 0."""
    return style.decimals(
        {**table, "rows": [row for cell in table["cells"] for row in [*cell["rows"], cell["teacher"]]]}
    )


def _notes(table: Record) -> list[str]:
    """The footnotes of the cells' tables, each once."""
    notes = [
        note
        for cell in table["cells"]
        for note in style.footnotes(
            {**table, **{key: cell[key] for key in ("seeds", "vary", "teacher")}, "control": None}
        )
    ]
    control = f"{table['control']} is the control: the student alone, for as many steps as every row but nokd."
    pool = any(cell["teacher"]["trained_on"] == "pool" for cell in table["cells"])
    gains = any(cell["gains"] for cell in table["cells"])
    shared = "the teacher and the generated images" if gains else "the teacher"
    return [
        *dict.fromkeys(notes),
        control,
        *(["The intervals are 95% t intervals, not corrected for the number of cells."] if gains else []),
        *(
            [f"Students of one setting share {shared}: their cells are not independent."]
            if len(table["cells"]) > 1
            else []
        ),
        *(["The teacher was trained on the whole pool."] if pool else []),
    ]


def _warnings(table: Record) -> list[str]:
    """The runs' warnings, each once; with the names of its cells, unless all have it."""
    cells: dict[str, list[str]] = {}
    for cell in table["cells"]:
        for warning in cell["warnings"]:
            cells.setdefault(warning, []).append(", ".join(part for part in (cell["student"], cell["setting"]) if part))
    count = len(table["cells"])
    return [text if len(of) == count else f"{'; '.join(of)}: {text}" for text, of in cells.items()]
