"""The commands: they read what the user typed, call the pipeline and show the results, without logic of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cgankd._version import __version__
from cgankd.cli import clean, compare, completion, data, doctor, init, lists, ship, tables, watch, weights, workers
from cgankd.cli.again import Again
from cgankd.cli.ending import ending
from cgankd.cli.recipes import (
    SKIP_BAD,
    Devices,
    MaxMinutes,
    Nodes,
    Overrides,
    Recipe,
    RecipeOrImages,
    SkipBad,
    Strategy,
    list_recipes,
    load,
    with_devices,
)  # fmt: skip
from cgankd.cli.screen import console
from cgankd.core import ranks
from cgankd.core.errors import UserError
from cgankd.core.paths import PAGE, RESULTS, expanded_word, portable
from cgankd.core.stopping import deadline_in
from cgankd.core.terminal import escape_what_streams_cannot_write, on_one_line, plain_console

if TYPE_CHECKING:
    from cgankd.core.watching import Watched
    from cgankd.shipping.export import Exported

# No import here may import torch, or the settings with pydantic, because `cgankd --help` must not take seconds.

app = typer.Typer(
    help="Knowledge distillation through conditionally generated images: train a small student from few labels.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """The entry point: every failure that a user can cause ends in one sentence and an exit code."""
    escape_what_streams_cannot_write()
    # torch's threads then sleep while they wait for each other: where another program takes a core, threads that spin
    # hold up the thread that they wait for, and a run takes more than twice as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.insert(0, "")  # networks given as module:function may be in the current folder
    try:
        words = [expanded_word(word) for word in sys.argv[1:]] or ["--help"]
        code = app(args=words, prog_name="cgankd", standalone_mode=False)
        if code == 130:  # typer turns Ctrl-C into this
            raise KeyboardInterrupt
    except typer.Exit as stop:
        code = stop.exit_code
    except BaseException as error:
        end = ending(error)
        if end is None:
            raise
        _fail(ranks.sentence_of(error, end.sentence), end.code)
    sys.exit(code or 0)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    name: RecipeOrImages,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the run; default runs/RECIPE")] = None,
    budget: init.RunBudget = None,
    skip_bad: SkipBad = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="write no file of the best student")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="print the table, write no report.html")] = False,
    quiet: watch.Quiet = False,
    as_json: watch.Json = False,
    track: watch.Track = None,
    profile: watch.Profiled = False,
    max_minutes: MaxMinutes = None,
    devices: Devices = None,
    nodes: Nodes = None,
    strategy: Strategy = None,
    jobs: workers.Jobs = None,
    executor: workers.OnExecutor = "processes",
    resources: workers.Resources = "",
) -> None:
    """Run a recipe and print its table. The same command resumes a run that was stopped."""
    deadline: float | None = None
    overrides = with_devices([*(overrides or []), *[SKIP_BAD] * skip_bad], devices, nodes, strategy)
    with watch.watching(quiet, as_json, track, profile) as progress:
        init.check_exists(name)
        from cgankd.config import recipe

        if name not in recipe.ready() and init.is_source(name):
            deadline = deadline_in(max_minutes)  # because looking at the images takes its part of it
            with watch.silenced(quiet):
                name, overrides = init.recipe_for(name, overrides, budget, out, progress, deadline)
        elif budget is not None:
            raise UserError(f"--budget is for images, but {name} is a recipe, which has its own numbers of steps")
        settings = load("run", name, overrides)
        folder = out or Path("runs") / portable(settings.name)
        devices = settings.runtime.devices * settings.runtime.nodes
        plain = track in (None, "none") and executor == "processes" and devices == 1
        plain = plain and not (as_json or profile or jobs or resources)
        again = Again(settings, folder, progress, plain, student=not no_export, report=not no_report)
        if again.is_said(_show_table):
            return
        progress.expected = init.expected(name, overrides)
        where = workers.executor(executor, jobs, resources)  # imports torch
        from cgankd.experiments.trials import run_with

        deadline = deadline_in(max_minutes) if deadline is None else deadline
        results = run_with(where, settings, folder, progress, deadline=deadline)
        if not ranks.goes_on_alone():
            return
        progress.rest()
        if not as_json:
            _show_table(results)
        again.keep(*_write_files(folder, progress, student=not no_export, report=not no_report))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    markdown: Annotated[bool, typer.Option("--markdown", help="only print the table, as Markdown")] = False,
) -> None:
    """Print the table of a finished run. Its report.html is also written again."""
    from cgankd.core.run_folder import read_results

    results = read_results(folder, ("rows", "warnings", "teacher", "control"))
    if markdown:
        from cgankd.report.table import as_markdown

        typer.echo(as_markdown(results), nl=False)
        return
    _show_table(results)
    _write_page(folder, anew=True)
    from cgankd.report.run import read

    if incomplete := read(folder).incomplete:
        console.print(f"! {on_one_line(incomplete)}")


@app.command()
def synthesize(
    name: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the run; default runs/RECIPE")] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="write the images that a teacher must label to this folder")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option("--candidates", min=1, help="generated images; default 1.25 M / rho")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--import", help="the teacher's predictions.csv in that folder: continue the run")
    ] = None,
    views: Annotated[
        bool, typer.Option("--views", help="with --import: write the views that rows such as kd and fm need, and stop")
    ] = False,
    quiet: watch.Quiet = False,
    max_minutes: MaxMinutes = None,
) -> None:
    """Let an external teacher label images. Write the images for it (--export), or read its predictions (--import)."""
    settings = load("run", name, overrides)
    if (export is None) == (predictions is None):
        raise UserError(
            "synthesize writes images to be labelled or reads predictions; needed: --export or --import, and not both"
        )
    if candidates is not None and export is None:
        raise UserError("--candidates is the number of images that --export writes; leave it out with --import")
    if views and predictions is None:
        raise UserError("--views needs the predictions for the exported images; needed: --import FILE")
    from cgankd.pipeline import labelling_service, preflight
    from cgankd.pipeline.run import run as go

    preflight.check_names(settings)
    possible, left_out = labelling_service.served(settings, predictions)
    if left_out and not views:
        console.print(
            f"left out, because they need predictions of other images: {', '.join(left_out)}; for those that match "
            "outputs, --import FILE --views writes these images"
        )
    folder = out or Path("runs") / portable(settings.name)
    deadline = deadline_in(max_minutes)
    with watch.watching(quiet) as progress:
        if predictions is not None and not views:
            results = go(labelling_service.answered(possible, predictions), folder, progress, deadline=deadline)
            if not ranks.goes_on_alone():
                return
            progress.rest()
            _show_table(results)
            _write_files(folder, progress)
            return
        if predictions is not None:
            message, written = labelling_service.export_views(
                settings, folder, predictions, progress, deadline=deadline
            )
        elif export is not None:
            message = labelling_service.export(possible, folder, export, candidates, progress, deadline=deadline)
            written = export
        progress.rest()
        console.print(message, soft_wrap=True)
        progress.finish(results=str(written))


@app.command()
def continual(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="a continual recipe or a YAML file; none: list them",
            autocompletion=completion.continual_recipe_names,
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the run; default runs/RECIPE")] = None,
    quiet: watch.Quiet = False,
    max_minutes: MaxMinutes = None,
) -> None:
    """Learn classes task by task. Each model learns from the old one; prints accuracy and forgetting."""
    if name is None:
        list_recipes("continual")
        return
    settings = load("continual", name, overrides)
    from cgankd.continual.run import run as learn

    folder = out or Path("runs") / portable(settings.name)
    with watch.watching(quiet) as progress:
        learn(settings, folder, progress, deadline=deadline_in(max_minutes))
        progress.finish(results=str(folder / RESULTS))
    typer.echo((folder / "table.md").read_text(encoding="utf-8"), nl=False)
    console.print(f"\n{folder}: table.md, accuracy.png, results.json", soft_wrap=True)


@app.command()
def lm(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="pydoc, or a YAML file; none: list them",
            autocompletion=completion.lm_recipe_names,
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the run; default runs/lm-RECIPE")] = None,
    quiet: watch.Quiet = False,
    max_minutes: MaxMinutes = None,
) -> None:
    """Distil a small language model. Runs SKD, ATKD and baselines and prints the table; needs cgankd[lm]."""
    if name is None:
        list_recipes("lm")
        return
    settings = load("lm", name, overrides)
    from cgankd.lm import command

    with watch.watching(quiet) as progress:
        command.run(settings, out, max_minutes, console, progress)


app.add_typer(
    data.app,
    name="data",
    help="Read, fetch or render a data set. SOURCE: a name, folder, .csv, .npz, .h5, .parquet, .tar, the address of "
    "one, hf://owner/name, recipe",
)
COMMANDS: tuple[Callable[..., None], ...] = (
    tables.table, tables.ablate, watch.status,
    init.init, compare.compare, ship.export, ship.export_images, ship.predict, ship.bench, ship.generate,
    lists.recipes, lists.show, lists.methods, lists.networks, clean.clean, weights.convert_weights, doctor.doctor,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)


def _show_table(results: dict[str, Any]) -> None:
    """Print the table, and below it the sentences and warnings."""
    from cgankd.report.table import table
    from cgankd.report.verdicts import verdicts

    console.print(table(results))
    for sentence in verdicts(results):
        console.print(on_one_line(sentence))
    for warning in results["warnings"]:
        console.print(f"! {on_one_line(warning)}")


def _write_files(
    folder: Path, progress: Watched, student: bool = True, report: bool = True
) -> tuple[Exported | None, Path | None]:
    """Write the best student's file and the page of a run that has just finished, and print their paths."""
    exported = None
    if student:
        from cgankd.shipping.export import export_after_run

        exported = export_after_run(folder)
    page = _write_page(folder) if report else None  # after the export, because the page names the file
    if exported is not None:
        ship.show_export(exported)
    progress.finish(
        results=str(folder / RESULTS),
        report=None if page is None else str(page),
        student=None if exported is None else str(exported.path),
    )
    return exported, page


def _write_page(folder: Path, anew: bool = False) -> Path:
    """Write the page and print its path. anew: also where it shows already what the folder holds."""
    from cgankd.report.made_from import is_current

    path = folder / PAGE
    if anew or not is_current(path):
        from cgankd.report.render import render  # takes a second to import

        render(folder)
    ship.show_page(path)
    return path


def _fail(message: str, code: int) -> None:
    if message:
        plain_console(stderr=True).print(f"cgankd: {on_one_line(message)}", style="red", soft_wrap=True)
    sys.exit(code)
