"""Write report.html from a run's folder: one file that needs no network; its script only moves sliders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from cgankd.core.errors import UserError
from cgankd.core.files import write_text
from cgankd.core.paths import PAGE
from cgankd.core.run_text import duration
from cgankd.report import (
    citation,
    figures,
    label_curve,
    sections,
    sections_answers,
    sections_examples,
    sections_metrics,
    sections_robustness,
    sections_search,
    settings,
    table,
    time_chart,
)
from cgankd.report.attention import attention
from cgankd.report.blocks import Block, Grid, Note, Section, drawn
from cgankd.report.headline import headline
from cgankd.report.made_from import made_from
from cgankd.report.run import Run, read

COMMAND = "cgankd run recipe.yaml"


def render(folder: Path) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    The page is written completely or not at all. Raises UserError where the folder is missing, is not a run's folder,
    or can't be written to.
    """
    folder = Path(folder)
    run = read(folder)
    key = "" if run.incomplete else made_from(folder)  # a page that lacks something is drawn again by the next run
    attention_section, worst_section = attention(run), sections_examples.worst(run)
    generated = table.generates(run.results)
    page_sections = [
        _comparison(run),
        *([sections_robustness.robustness(run)] if run.results.get("robustness") else []),
        *([answers] if (answers := sections_answers.answered(run)) else []),
        *([worst_section] if worst_section else []),
        sections.data(run),
        # The autopilot may have tried generated images and chosen a row without them.
        *([sections.generator(run)] if generated or run.artifact("generator") else []),
        *([sections.subsampling(run), sections.filtering(run)] if generated else []),
        *([sections_search.piloted(run)] if run.results.get("autopilot") else []),
        *([sections_search.searched(run)] if run.results.get("search") else []),
        *([sections_metrics.quality(run), sections_metrics.copies(run)] if generated else []),
        sections.learning(run),
        *([attention_section] if attention_section else []),
        _cost(run),
        *([label_curve.section(ablation)] if (ablation := label_curve.read(run.folder)) else []),
        *([sections_metrics.theory(run)] if generated else []),
        citation.section(str(run.results.get("cgankd", "unknown"))),
    ]
    return write(folder / PAGE, _page(run, page_sections, COMMAND, key))


def write_page(target: Path, run: Run, page_sections: Sequence[Section], command: str) -> Path:
    """Write a page with the run's headline, its table and these sections; ``command`` makes the page again.

    Written completely or not at all; UserError where ``target`` can't be written. Returns ``target``.
    """
    return write(target, _page(run, page_sections, command))


def write(target: Path, page: str) -> Path:
    """Write a page completely or not at all, and return its path; UserError where it can't be written."""
    if not target.parent.is_dir():
        raise UserError(f"{target}: can't be written: {target.parent} is no folder")
    try:
        write_text(target, page)
    except OSError as error:
        raise UserError(f"{target}: can't be written: {error.strerror}") from None
    return target


def environment() -> jinja2.Environment:
    """The templates of all pages; what they are given is escaped."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("cgankd.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {"light": figures.LIGHT, "dark": figures.DARK}
    return templates


def _page(run: Run, page_sections: Sequence[Section], command: str, key: str = "") -> str:
    results = run.results
    recipe, shortened = settings.as_text(run)
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            name=results.get("recipe", "run"),
            description=results.get("description") or "",
            facts=_facts(run),
            headline=headline(results, run.folder),
            warnings=[*filter(None, [run.incomplete]), *(str(warning) for warning in results.get("warnings") or [])],
            header=table.header(results),
            rows=[(table.cells(row), row.verdict) for row in table.rows(results)],
            footnotes=table.footnotes(results),
            sections=page_sections,
            recipe=recipe,
            shortened=shortened,
            command=command,
            made_from=key,
            version=results.get("cgankd", "unknown"),
        )
    )


def _facts(run: Run) -> list[str]:
    results = run.results
    seeds = results.get("seeds") or []
    listed = ", ".join(str(seed) for seed in seeds)
    facts = [f"data {results['dataset']}" if results.get("dataset") else "", run.task.name]
    facts.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {listed}" if seeds else "")
    return [fact for fact in (*facts, "demonstration" if results.get("demonstration") else "") if fact]


def _comparison(run: Run) -> Section:
    results = run.results
    better = "right" if results["higher_is_better"] else "left"
    teacher = (results.get("teacher") or {}).get("test")
    teacher_score = "" if teacher is None else f" The teacher scores {table.score(results, teacher, None)}."
    several = len(results.get("seeds") or []) > 1
    sentences = [f"Further {better} is better."]
    sentences += ["Small dots are seeds, bars one standard deviation to each side."] if several else []
    if any(row["method"] == results.get("control") for row in results["rows"]):
        gain = f" In a clear gain all dots are {better} of it." if several else ""
        sentences.append(f"The dashed line is the control.{gain}")
    sentences += [] if several else ["With one seed a difference may be chance."]
    blocks: list[Block] = drawn(figures.dots(results), "dots", " ".join(sentences) + teacher_score)
    by_bin = figures.bins(results)
    if by_bin is None:
        blocks.append(Note("The results have no score per class or label range."))
    else:
        kind = run.task.bin_name
        blocks += drawn(by_bin[0], "bins", f"Score per {kind}, mean over seeds.{by_bin[1]}")
        blocks.append(_bin_table(results, kind))
    ablated = any(table.is_ablation(row["method"]) for row in results["rows"])
    if table.generates(results) and not ablated and not results.get("autopilot"):  # which allows no ablation
        blocks.append(
            Note("This run has no ablation; compare.ablation=true adds raw fakes and each processing step as rows.")
        )
    return Section("Comparison", "comparison", blocks)


def _bin_table(results: Mapping[str, Any], kind: str) -> Grid:
    names = [str(name) for name in results["bins"]]
    places = table.decimals(results)
    sources = [row for row in results["rows"] if len(row.get("per_bin") or []) == len(names)]
    teacher = results.get("teacher") or {}
    if len(teacher.get("per_bin") or []) == len(names):
        sources.append({"method": "teacher", "per_bin": teacher["per_bin"]})
    columns = [[table.number(value, places) for value in row["per_bin"]] for row in sources]
    rows = [[name, *(column[place] for column in columns)] for place, name in enumerate(names)]
    header = [kind, *(str(row["method"]) for row in sources)]
    return Grid(header, rows, f"All scores per {kind}, {table.metric_with_unit(results)}", folded=True)


def _cost(run: Run) -> Section:
    results = run.results
    blocks: list[Block] = []
    best = "upper" if results["higher_is_better"] else "lower"
    lines = " Lines are one standard deviation to each side." if any(row.get("std") for row in results["rows"]) else ""
    for by, what in (("parameters", "parameters"), ("latency", "milliseconds")):
        caption = f"The {best} left corner is best: a good score with few {what}.{lines}"
        caption += " A time is that of the fastest of many calls, with one image each." if by == "latency" else ""
        caption += " Where marks would hide each other, the lower ones are larger."
        blocks += drawn(figures.cost(results, by), by, caption)
    if not results.get("latency_ms"):
        blocks.append(Note("This run measured no latency."))
    blocks.append(_networks(results))
    seconds = {str(stage): float(took) for stage, took in (results.get("seconds") or {}).items() if took is not None}
    if seconds:
        total = duration(sum(seconds.values()))
        caption = f"Time per stage, {total} in total; stages from earlier runs count with their time then."
        blocks += drawn(time_chart.times(seconds), "times", caption)
    return Section("Size, speed and time", "cost", blocks)


def _networks(results: Mapping[str, Any]) -> Grid:
    latency = results.get("latency_ms") or {}
    sizes = {str(row["network"]): row.get("parameters") for row in results["rows"] if row.get("network")}
    teacher = results.get("teacher") or {}
    if teacher.get("network"):
        sizes.setdefault(str(teacher["network"]), teacher.get("parameters"))
    rows = [[name, table.count(size), table.number(latency.get(name), 2)] for name, size in sizes.items()]
    return Grid(["network", "parameters", "ms per image"], rows, "The networks", wide=False)
