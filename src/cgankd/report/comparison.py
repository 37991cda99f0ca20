"""The page compare.html: the rows of several runs side by side, and what differs in their settings.

Only scores on the same test images are put into one table. Other runs get a table of their own, with the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cgankd.core import run_text
from cgankd.core.errors import UserError
from cgankd.metrics.statistics import place_of_best, spread
from cgankd.report import settings, shipped, table
from cgankd.report.blocks import Block, Grid, Note, Section, drawn
from cgankd.report.figures import LIGHT, scored_rows
from cgankd.report.label_curve import NO_BREAK
from cgankd.report.render import environment, write
from cgankd.report.run import Run, read
from cgankd.report.short_names import distinct

UNTOLD = frozenset({"name", "description"})  # settings that change no result
AFTER_SCORE = ("network", "parameters", "ms per image", "images, real + fake", "seeds")  # columns of the page
NOTE = 3  # its place in a row
NAME, METHOD = 15, 22  # letters of the names of a run and a row in the figure, which has room for these and a score
LONG_METHOD = 26  # letters; as many as the control's name has, which is not cut


@dataclasses.dataclass(frozen=True)
class Part:
    """Runs whose scores can be compared. why: the reason for which they are in no earlier part; "" for the first."""

    runs: Mapping[str, Run]  # by name
    why: str

    @property
    def results(self) -> dict[str, Any]:
        """The first run's results, with the rows and the teachers of all runs as rows, for the texts of numbers."""
        rows = [row | {"difference": None} for run in self.runs.values() for row in run.results["rows"]]
        return {**next(iter(self.runs.values())).results, "rows": rows}


def read_runs(folders: Sequence[Path]) -> dict[str, Run]:
    """The runs by name: the folder's name, or its path where two have the same name.

    Raises UserError for fewer than two folders, a folder given twice, and a folder that holds no finished run.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} folder is given; needed: the --out folders of two or more finished runs")
    runs: dict[str, Run] = {}
    names = [folder.resolve().name for folder in folders]
    for place, folder in enumerate(folders):
        if folder.resolve() in {other.resolve() for other in folders[:place]}:
            raise UserError(f"{folder} is given twice; allowed: folders of different runs")
        runs[names[place] if names.count(names[place]) == 1 else str(folder)] = read(folder)
    return runs


def parts(runs: Mapping[str, Run]) -> list[Part]:
    """The runs in parts with the same test images and metric each, in the order given."""
    groups: dict[tuple[str, ...], dict[str, Run]] = {}
    for name, run in runs.items():
        known = run.results.get("test_images")
        key = (str(run.results["metric"]), table.unit_of(run.results), str(known) if known else f"unknown: {name}")
        groups.setdefault(key, {})[name] = run
    first = next(iter(runs))
    return [Part(group, "" if first in group else _why(first, runs[first], group)) for group in groups.values()]


def _why(first: str, reference: Run, group: Mapping[str, Run]) -> str:
    """The reason for which a group of runs can't be compared with the first run."""
    names, results = ", ".join(group), next(iter(group.values())).results
    verb = "is" if len(group) == 1 else "are"
    metric, other = table.metric_with_unit(results), table.metric_with_unit(reference.results)
    if metric != other:
        reason = f"the score is {metric} there, and {other} in {first}"
    elif not results.get("test_images") or not reference.results.get("test_images"):
        older = first if results.get("test_images") else names
        reason = f"{older} does not say which test images it used; the same run command adds this"
    else:
        data = [str(found.get("dataset")) for found in (results, reference.results)]
        same = data[0] == data[1]
        reason = "the test images differ" + ("" if same else f": {data[0]} there, {data[1]} in {first}")
    return f"{names} {verb} not compared with {first}, because {reason}."


def rows(part: Part) -> tuple[list[list[str]], int]:
    """The table's rows as texts, those of the teachers last in each run; and the place of the best row of a student."""
    results = part.results
    texts: list[list[str]] = []
    decimals = table.decimals(results)
    means: list[float] = []
    places: list[int] = []
    for name, run in part.runs.items():
        best, seeds = (run.results.get("best") or {}).get("row"), run.results.get("seeds") or []
        for row in run.results["rows"]:
            means.append(row["mean"])
            places.append(len(texts))
            score = table.mean_and_spread({"std": None, **row}, decimals)
            images = f"{table.count(row.get('real_images'))} + {table.count(row.get('fake_images') or 0)}"
            note = "chosen on validation" if row["method"] == best else ""
            words = table.words(row["method"])
            texts.append([name, words, score, note, *_network(run, row), images, str(len(seeds))])
        if teacher := run.results.get("teacher"):
            values = teacher.get("values") or []
            score = table.mean_and_spread({"mean": teacher.get("test"), "std": spread(values)["std"]}, decimals)
            images = table.count(teacher.get("images"))
            texts.append([name, "the teacher", score, "", *_network(run, teacher), images, str(len(values))])
    place = places[place_of_best(means, results["higher_is_better"])]
    texts[place][NOTE] = ", ".join(note for note in ("best here", texts[place][NOTE]) if note)
    return texts, place


def _network(run: Run, entry: Mapping[str, Any]) -> list[str]:
    """The name, the size and the time for an image of the network of a row or of the teacher."""
    name, latency = entry.get("network"), run.results.get("latency_ms") or {}
    return [str(name or "–"), table.count(entry.get("parameters")), table.number(latency.get(name), 2)]


def footnotes(part: Part) -> list[str]:
    """The meaning and the limits of the table, one sentence each."""
    better = "higher" if part.results["higher_is_better"] else "lower"
    return [
        f"Mean ± standard deviation over seeds on the same test images; {better} is better.",
        "Best here: the best mean of a student in this table. It was chosen on the test images themselves, so it is "
        "slightly optimistic.",
        "Chosen on validation: the row whose student each run exports.",
        *(sentence for name, run in part.runs.items() if (sentence := _on_all_labels(name, run.results))),
        "Seeds of different runs are not paired, so a difference between runs that is not clearly larger than their "
        "standard deviations may be chance.",
    ]


def _on_all_labels(name: str, results: Mapping[str, Any]) -> str:
    """What a run exports in place of its chosen row's student; "" where it exports that student."""
    again = results.get("refit")
    if not again or not again["ships"]:
        return ""
    scored = table.score(results, again["mean"], None)
    return f"{name} exports that student trained again on all {table.count(shipped.labelled(again))} labels: {scored}."


def different_settings(runs: Mapping[str, Run]) -> list[list[str]]:
    """The settings that differ between the runs: a name with dots, and its value in each run ("–": has none).

    What only concerns generated images counts as missing where a run made none.
    """
    leaves = {name: dict(_leaves(settings.settings(run))) for name, run in runs.items() if run.recipe}
    names = dict.fromkeys(setting for known in leaves.values() for setting in known if setting not in UNTOLD)
    lines = []
    for setting in names:
        values = [str(known.get(setting, "–")) for known in leaves.values()]
        if len(set(values)) > 1:
            lines.append([setting, *(str(leaves[name].get(setting, "–")) if name in leaves else "?" for name in runs)])
    return lines


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict) and (tree or not path):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, "none" if tree is None else str(tree)


def render(runs: Mapping[str, Run], out: Path) -> Path:
    """Write the page, completely or not at all; UserError where it can't be written. Returns its path."""
    sections = []
    for number, part in enumerate(parts(runs)):
        results = part.results
        title = f"{results.get('dataset') or 'unknown data'}: {run_text.metric_name(str(results['metric']))}"
        sections.append(Section(title, f"part-{number}", list(_blocks(part, number))))
    sections.append(Section("The runs", "runs", [_facts(runs)]))
    sections.append(Section("What differs in their settings", "settings", _settings(runs)))
    warnings = [f"{name}: {warning}" for name, run in runs.items() for warning in run.results.get("warnings") or []]
    page = (
        environment()
        .get_template("comparison.html.jinja")
        .render(names=list(runs), sections=sections, warnings=warnings)
    )
    return write(out, page)


def _blocks(part: Part, number: int) -> Iterator[Block]:
    if part.why:
        yield Note(part.why)
    texts, best = rows(part)
    header = ["run", "method", table.metric_with_unit(part.results), "", *AFTER_SCORE]
    unbroken = [[text.replace(" ± ", f"{NO_BREAK}±{NO_BREAK}") for text in row] for row in texts]
    for place, (before, row) in enumerate(itertools.pairwise(texts), start=1):
        if row[0] == before[0] and place != best:
            unbroken[place][0] = ""  # a name that may be long, once for all rows of a run
    yield Grid(header, unbroken, "All rows", strong=(best,), left=2)
    yield from (Note(sentence) for sentence in footnotes(part))
    side = "right" if part.results["higher_is_better"] else "left"
    caption = f"Further {side} is better. Small dots are seeds, bars one standard deviation to each side."
    yield from drawn(figure(part), f"comparison-{number}", caption)


def _facts(runs: Mapping[str, Run]) -> Grid:
    lines = []
    for name, run in runs.items():
        results = run.results
        best = results.get("best") or {}
        lines.append([
            name, str(results.get("recipe", "–")), str(results.get("dataset", "–")),
            ", ".join(map(str, results.get("seeds") or [])), table.words(str(best.get("row", "–"))),
            _time(run) or "–", str(results.get("cgankd", "–")),
        ])  # fmt: skip
    header = ["run", "recipe", "data", "seeds", "chosen on validation", "time in total", "cgankd"]
    return Grid(header, lines, "Each run", prose=True)


def times(runs: Mapping[str, Run]) -> str:
    """A sentence with the time that each run took; "" where none is known."""
    known = [f"{name} {time}" for name, run in runs.items() if (time := _time(run))]
    return f"Time in total: {', '.join(known)}." if known else ""


def _time(run: Run) -> str:
    seconds = [float(took) for took in (run.results.get("seconds") or {}).values() if took is not None]
    return run_text.duration(sum(seconds)) if seconds else ""


def _settings(runs: Mapping[str, Run]) -> list[Block]:
    unknown = [name for name, run in runs.items() if not run.recipe]
    notes: list[Block] = []
    if unknown:
        notes.append(Note(f"Without recipe.yaml, so its settings are not known: {', '.join(unknown)}."))
    lines = different_settings(runs)
    if not lines:
        return [*notes, Note("No setting differs between the recipes that are known.")]
    return [*notes, Grid(["setting", *runs], lines, "Settings that differ", prose=True)]


def figure(part: Part) -> Figure:
    """One line per row, run after run."""
    lines = [(name, row) for name, run in part.runs.items() for row in run.results["rows"]]
    runs = list(part.runs)
    short = dict(zip(runs, distinct(runs, NAME) or runs, strict=True))
    methods = [table.plain_words(row["method"]) for _, row in lines]
    cut = distinct(methods, METHOD) or methods
    chosen = [text if len(method) > LONG_METHOD else method for method, text in zip(methods, cut, strict=True)]
    names = [f"{short[name]}, {method}" for (name, _), method in zip(lines, chosen, strict=True)]
    drawing, axes = scored_rows(part.results, [row for _, row in lines], names, in_layout=False)
    for place, ((before, _), (name, _)) in enumerate(itertools.pairwise(lines), start=1):
        if before != name:
            axes.axhline(-place + 0.58, color=LIGHT["muted"], linewidth=0.8)
    return drawing
