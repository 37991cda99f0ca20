"""A table as people read it (Markdown, like the paper's) and as programs do (CSV, one line per cell and row)."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from cgankd.report import table as style

FEWEST_PAIRS = 6  # five pairs that all agree still have p = 0.0625
FIELDS = (
    "recipe", "dataset", "setting", "student", "method", "network", "parameters", "steps", "real_images",
    "fake_images", "metric", "unit", "seeds", "values", "mean", "std", "gain_over", "gain", "gain_low", "gain_high",
)  # fmt: skip

Made = Mapping[str, Any]


def markdown(found: Made) -> str:
    """Per recipe a table of scores and one of gains with a column block per setting; then the sign test.

    found: what table.json holds. Where cells are missing, they are named at the end. Ends with a newline.
    """
    parts = list(itertools.chain.from_iterable(_one_recipe(made) for made in found["tables"]))
    parts.append("Sign test over all cells; a pair is one cell, its two rows' means over the seeds:")
    parts.append(_list([sign_test_sentence(test) for test in found["sign_tests"]]))
    if found["missing"]:
        parts.append(f"**Not finished**: {len(found['missing'])} missing (…), the same command goes on:")
        parts.append(_list(found["missing"]))
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
            teacher = {"method": "teacher", **cell["teacher"]}
            for row in [*({**row, "network": cell["student"]} for row in cell["rows"]), teacher]:
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
                }
                writer.writerow(known)
    return stream.getvalue()


def sign_test_sentence(test: Made) -> str:
    """What a sign test says, and what it can't: fewer than six pairs never reach p < 0.05."""
    against = f"{test['of']} against {test['to']}"
    if not test["pairs"]:
        return f"{against}: no pairs."
    counted = test["better"] + test["worse"]
    ties = f", {test['pairs'] - counted} equal" if counted < test["pairs"] else ""
    p = "" if test["p"] is None else f", p = {test['p']:.2g} (two-sided)"
    pairs = "1 pair" if test["pairs"] == 1 else f"{test['pairs']} pairs"
    said = f"{against}: {pairs}, {test['better']} better, {test['worse']} worse{ties}{p}"
    return f"{said}; so few pairs prove nothing." if counted < FEWEST_PAIRS else f"{said}."


def _one_recipe(made: Made) -> list[str]:
    cells = {(cell["student"], cell["setting"]): cell for cell in made["cells"]}
    rows = [row for cell in made["cells"] for row in [*cell["rows"], cell["teacher"]]]
    gains = [{"mean": None, "difference": gain} for cell in made["cells"] for gain in cell["gains"]]
    places = style.decimals({**made, "rows": [*rows, *gains]})
    unit = style.difference_unit(made)
    parts = [
        f"## {made['recipe']}: {made['dataset']}",
        f"{style.metric_name(made)} on the test split, mean ± standard deviation over seeds",
        _scores(made, cells, places),
        f"Gain{f', {unit}' if unit else ''}: difference paired by seed, with its 95% interval",
        _gains(made, cells, places),
        _list([*_notes(made), *_warnings(made)]),
    ]
    return [part for part in parts if part]


def _scores(made: Made, cells: Mapping[tuple[str, str], Made], places: int) -> str:
    def text(score: Made | None) -> str:
        if score is None:
            return "…"
        spread = "" if score["std"] is None else f" ± {style.number(score['std'], places)}"
        return style.number(score["mean"], places) + spread

    blocks = [(setting, made["methods"]) for setting in made["settings"]]
    lines = _header(blocks)
    for student in made["students"]:
        line = [student]
        for setting, methods in blocks:
            cell = cells.get((student, setting))
            scores = {row["method"]: row for row in cell["rows"]} if cell else {}
            line += [text(scores.get(method)) if not cell or method in scores else "–" for method in methods]
        lines.append(line)
    networks = dict.fromkeys(cell["teacher"]["network"] for cell in made["cells"])
    teacher = [f"teacher {', '.join(networks)}"]
    for setting, methods in blocks:  # in the block's first column: it learnt from labels alone
        found = next((cell["teacher"] for (_, of), cell in cells.items() if of == setting), None)
        teacher += [text(found), *[""] * (len(methods) - 1)]
    return _aligned([*lines, teacher])


def _gains(made: Made, cells: Mapping[tuple[str, str], Made], places: int) -> str:
    pairs = list(dict.fromkeys((gain["of"], gain["to"]) for cell in made["cells"] for gain in cell["gains"]))
    if not pairs:
        return ""

    def text(cell: Made | None, pair: tuple[str, str]) -> str:
        if cell is None:
            return "…"
        gain = next((gain for gain in cell["gains"] if (gain["of"], gain["to"]) == pair), None)
        if gain is None:
            return "–"
        ends = [gain["low"], gain["high"]]
        between = ", ".join(style.number(end, places, signed=True) for end in ends)
        mean = style.number(gain["mean"], places, signed=True)
        return f"{mean} (no interval)" if None in ends else f"{mean} [{between}]"

    blocks = [(setting, [f"{of} − {to}" for of, to in pairs]) for setting in made["settings"]]
    lines = _header(blocks)
    for student in made["students"]:
        both = [cells.get((student, setting)) for setting in made["settings"]]
        lines.append([student, *(text(cell, pair) for cell in both for pair in pairs)])
    return _aligned(lines)


def _header(blocks: Sequence[tuple[str, Sequence[str]]]) -> list[list[str]]:
    """Each block's setting above its first column, the columns' names below; a nameless block: these alone."""
    names = [name for _, columns in blocks for name in columns]
    settings = [cell for setting, columns in blocks for cell in (setting, *[""] * (len(columns) - 1))]
    return [["student", *settings], ["", *names]] if any(settings) else [["student", *names]]


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
            said.setdefault(warning, []).append(
                ", ".join(part for part in (cell["student"], cell["setting"]) if part)
            )
    everywhere = len(made["cells"])
    return [text if len(of) == everywhere else f"{'; '.join(of)}: {text}" for text, of in said.items()]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other in a terminal too; the first line is the header."""
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(lines[0]))]
    first, *others = widths
    rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]

    def padded(line: Sequence[str]) -> list[str]:
        numbers = zip(line[1:], others, strict=True)
        return [line[0].ljust(first), *(cell.rjust(width) for cell, width in numbers)]

    header, *body = (padded(line) for line in lines)
    return "\n".join(style.markdown_line(line) for line in [header, rule, *body])


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
