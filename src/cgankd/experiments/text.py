"""A table as people read it (Markdown, like the paper's) and as programs do (CSV, one line per cell and row)."""

from __future__ import annotations

import csv
import io
import itertools
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

Made = Mapping[str, Any]


def as_markdown(found: Made) -> str:
    """Per recipe a table of scores and one of what generated images add; sign tests; where nothing is gained.

    found: what table.json holds. Where cells are missing, they are named at the end. Ends with a newline.
    """
    tables = found["tables"]
    places = [_decimals(made) for made in tables]
    parts = [part for made, decimals in zip(tables, places, strict=True) for part in _one_recipe(made, decimals)]
    parts += ["## How many gain", markdown.bullets(gains_text.counts(found["counts"]))]
    if unhelped := gains_text.unhelped(tables, places):
        parts += ["## No better with generated images", markdown.bullets(unhelped)]
    if found["left_out"]:
        parts += ["## Left out of `all`", markdown.bullets(found["left_out"])]
    if found["missing"]:
        parts.append(f"**Not finished**: {len(found['missing'])} missing (…), the same command goes on:")
        parts.append(markdown.bullets(found["missing"]))
    return "\n\n".join(parts) + "\n"


def comma_separated(found: Made) -> str:
    """One line per cell and row, the teacher's too, with a header; numbers at full precision.

    ``seeds`` and ``values`` are lists separated by blanks; what does not apply is empty.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for made in found["tables"]:
        for cell in made["cells"]:
            gains = {gain["of"]: gain for gain in cell["gains"]}
            for row in [*({**row, "network": cell["student"]} for row in cell["rows"]), _teacher(cell)]:
                gain = gains.get(row["method"], {})
                known = {
                    **{key: made[key] for key in ("recipe", "dataset", "metric", "unit")},
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


def _one_recipe(made: Made, places: int) -> list[str]:
    parts = [
        f"## {markdown.literal(made['recipe'])}: {markdown.literal(made['dataset'])}",
        f"{markdown.literal(style.metric_name(made))} on the test split, mean ± standard deviation over seeds",
        _scores(made, places),
        markdown.bullets([*_notes(made), *_warnings(made)]),
    ]
    if any(cell["gains"] for cell in made["cells"]):
        parts += [
            "### What generated images add",
            "Each method on real images alone, and on real and generated ones; differences are paired by seed.",
            gains_text.gains_table(made, places),
        ]
    return parts


def _scores(made: Made, places: int) -> str:
    """A line per row, the teacher's last, and a column per student and setting."""
    cells = {(cell["student"], cell["setting"]): cell for cell in made["cells"]}
    columns = list(itertools.product(made["settings"], made["students"]))
    students = ["", *(student for _, student in columns)]
    # Each setting stands above its first student.
    settings = ["", *(setting if student == made["students"][0] else "" for setting, student in columns)]
    lines = [settings, students] if any(settings) else [students]
    lines[0][0] = "method"
    scores = {
        at: {row["method"]: style.mean_and_spread(row, places) for row in [*cell["rows"], _teacher(cell)]}
        for at, cell in cells.items()
    }
    networks = dict.fromkeys(cell["teacher"]["network"] for cell in made["cells"])
    for method in [*made["methods"], TEACHER]:
        line = [f"{TEACHER} {', '.join(networks)}" if method == TEACHER else method]
        for setting, student in columns:
            found = scores.get((student, setting))
            line.append("…" if found is None else found.get(method, "–"))
        lines.append(line)
    return markdown.grid(lines)


def _teacher(cell: Made) -> Made:
    return {"method": TEACHER, **cell["teacher"]}


def _decimals(made: Made) -> int:
    """How many decimals a table has, by its scores: of many gains some are next to nothing."""
    return style.decimals({**made, "rows": [row for cell in made["cells"] for row in [*cell["rows"], cell["teacher"]]]})


def _notes(made: Made) -> list[str]:
    """The footnotes of a run's table, each once however many cells have it."""
    notes = [
        note
        for cell in made["cells"]
        for note in style.footnotes({**made, "seeds": cell["seeds"], "vary": cell["vary"], "control": None})
    ]
    control = f"{made['control']} is the control: the student alone, for as many steps as every row but nokd."
    pool = any(cell["teacher"]["trained_on"] == "pool" for cell in made["cells"])
    return [
        *dict.fromkeys(notes),
        control,
        "The intervals are 95% t intervals, not corrected for the number of cells.",
        "Students of one setting share the teacher and the generated images: their cells are not independent.",
        *(["The teacher was trained on the whole pool."] if pool else []),
    ]


def _warnings(made: Made) -> list[str]:
    """The runs' warnings, each once; with its cells where it is not said of all."""
    said: dict[str, list[str]] = {}
    for cell in made["cells"]:
        for warning in cell["warnings"]:
            said.setdefault(warning, []).append(", ".join(part for part in (cell["student"], cell["setting"]) if part))
    everywhere = len(made["cells"])
    return [text if len(of) == everywhere else f"{'; '.join(of)}: {text}" for text, of in said.items()]
