"""The commands. No logic of their own: they read what the user typed, call the road, and show what came of it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cgankd import __version__, recipe
from cgankd.errors import OutOfTime, TrainingError, UserError

# Nothing that imports torch stands up here: `cgankd --help` must not take seconds.

app = typer.Typer(
    help="Knowledge distillation through conditionally generated images: train a small student from few labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()

MaxMinutes = Annotated[
    float | None,
    typer.Option("--max-minutes", min=0, help="stop at a checkpoint after so long, with exit code 75; then go on"),
]
Overrides = Annotated[list[str] | None, typer.Argument(help="settings as key=value, such as student.fit.steps=500")]


def main() -> None:
    """The entry point: every way of failing that a user can meet ends in one sentence and an exit code."""
    sys.path.insert(0, "")  # networks given as module:function may lie in the current folder
    try:
        code = app(standalone_mode=False)
        if code == 130:  # typer turns Ctrl-C into this
            raise KeyboardInterrupt
    except UserError as error:
        _fail(str(error), 2)
    except TrainingError as error:
        _fail(str(error), 1)
    except OutOfTime:
        _fail("stopped: the time it was given is over; the same command goes on from here", 75)  # EX_TEMPFAIL
    except typer.Exit as stop:
        code = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped; the same command goes on from here", 130)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}:
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _fail(f"{os.strerror(error.errno)}{where}; make room or rights there, and the same command goes on", 2)
    except Exception as error:
        if not _is_click_error(error):
            raise
        _fail(error.format_message(), 2)  # type: ignore[attr-defined]
    sys.exit(code or 0)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="a ready recipe (cgankd recipes) or a YAML file")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the run; default runs/RECIPE")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bars")] = False,
    max_minutes: MaxMinutes = None,
) -> None:
    """Go the whole road and print the table; started again, it goes on where it was."""
    settings = recipe.load(name, overrides or [])
    from cgankd import pipeline
    from cgankd.progress import SILENT, ConsoleProgress

    folder = out or Path("runs") / settings.name
    found = pipeline.run(settings, folder, SILENT if quiet else ConsoleProgress(console), max_minutes)
    _show(folder, found)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    markdown: Annotated[bool, typer.Option("--markdown", help="print the table as Markdown, nothing else")] = False,
) -> None:
    """Print a run's table again and write its report.html anew."""
    from cgankd.files import read_json

    if not (folder / "results.json").is_file():
        raise UserError(f"{folder} holds no results.json; give the --out folder of a run that has finished")
    found = read_json(folder / "results.json")
    if not isinstance(found, dict) or not {"rows", "warnings", "teacher"} <= set(found):
        raise UserError(f"{folder / 'results.json'} is not the results of a run")
    if markdown:
        from cgankd.report.table import markdown as as_markdown

        typer.echo(as_markdown(found), nl=False)
        return
    _show(folder, found)


@app.command()
def recipes() -> None:
    """List the ready recipes."""
    table = Table("recipe", "what it is", box=None, pad_edge=False)
    for name in recipe.ready():
        table.add_row(name, recipe.load(name).description)
    console.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="a ready recipe or a YAML file")],
    overrides: Overrides = None,
) -> None:
    """Print a recipe with every setting resolved, as YAML."""
    typer.echo(recipe.load(name, overrides or []).to_yaml(), nl=False)


@app.command()
def data(
    source: Annotated[str | None, typer.Argument(help="a built-in data set, a folder, .npz or .h5")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="data settings as key=value, such as label_column=steering")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="where the sample grid goes; default NAME.png")] = None,
) -> None:
    """Read a data set as a run would: counts, label histogram, and a grid of samples as PNG."""
    from cgankd.data import sources

    if source is None:
        table = Table("data set", "what it is", box=None, pad_edge=False)
        for name, description in sources.builtin_names().items():
            table.add_row(name, description)
        console.print(table)
        return
    changes = [override if override.startswith("data.") else f"data.{override}" for override in overrides or []]
    settings = recipe.from_tree({"data": {"source": source}}, changes, where=f"data {source}").data
    _show_data(settings, out)


@app.command()
def convert_weights(
    source: Annotated[Path, typer.Argument(help="a .pth or .pt file with a state dict")],
    destination: Annotated[Path, typer.Argument(help="the .safetensors file to write")],
    mean: Annotated[str | None, typer.Option(help="input means of its training, in [0, 1]: 0.49,0.48,0.45")] = None,
    std: Annotated[str | None, typer.Option(help="input standard deviations, likewise")] = None,
) -> None:
    """Make a .safetensors file of foreign PyTorch weights; only tensors are read, nothing is executed."""
    import torch

    from cgankd.nets.weights import convert_pth

    def numbers(text: str | None, option: str) -> Any:
        try:
            return None if text is None else torch.tensor([float(part) for part in text.split(",")])
        except ValueError:
            raise UserError(f"{option} {text!r} is not a list of numbers such as 0.49,0.48,0.45") from None

    convert_pth(source, destination, mean=numbers(mean, "--mean"), std=numbers(std, "--std"))
    console.print(f"wrote {destination}")


def _show(folder: Path, found: dict[str, Any]) -> None:
    from cgankd.report.render import render
    from cgankd.report.table import table

    console.print(table(found))
    for warning in found["warnings"]:
        console.print(f"! {warning}", highlight=False)
    page = render(folder)
    console.print(f"{page}  (open it in a browser)", highlight=False, soft_wrap=True)


def _show_data(settings: recipe.DataSettings, out: Path | None) -> None:
    from cgankd.data import preview, sources
    from cgankd.progress import ConsoleProgress
    from cgankd.report.sheet import sheet

    with ConsoleProgress(console).bar("import", 1) as bar:
        splits = sources.load(settings, lambda done, total: bar.to(done / total))
    found = preview.describe(splits)
    console.print(
        f"{splits.name}: {splits.task.name}, {found['size'][0]}x{found['size'][1]} pixels, "
        f"{found['channels']} channel(s)"
    )
    parts = ("train", "pool", "val", "test")
    table = Table("label", *parts, box=None, pad_edge=False)
    for number, label in enumerate(found["bins"]):
        table.add_row(label, *(str(found["histogram"][part][number]) for part in parts))
    table.add_row("all", *(str(found["counts"][part]) for part in parts), style="bold")
    console.print(table)
    for note in splits.notes:
        console.print(f"- {note}", highlight=False)
    path = out or Path(f"{Path(splits.name).stem}.png")
    sheet(preview.examples(splits.train, splits.task), found["bins"], path)
    console.print(f"wrote {path}", highlight=False)


def _is_click_error(error: Exception) -> bool:
    """Whether typer's parser raised it: an unknown option, a missing argument."""
    return callable(getattr(error, "format_message", None)) and hasattr(error, "exit_code")


def _fail(message: str, code: int) -> None:
    Console(stderr=True).print(f"cgankd: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
