"""How the long commands are watched: their options, what is shown while they run, and ``cgankd status``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cgankd.cli.ending import FAILED, Ending, ending
from cgankd.cli.screen import console
from cgankd.core import ranks
from cgankd.core.errors import UserError
from cgankd.core.terminal import on_one_line

if TYPE_CHECKING:
    from cgankd.core.watching import Output, Watched

Quiet = Annotated[bool, typer.Option("--quiet", help="print the result only, no progress")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object a line, for programs")]
Profiled = Annotated[
    bool, typer.Option("--profile", help="print where each stage's time and memory go, and write traces to DIR/profile")
]
Track = Annotated[
    str | None,
    typer.Option("--track", help="tensorboard, csv, wandb, mlflow or none; default tensorboard where it is installed"),
]


@contextmanager
def watching(
    quiet: bool = False, as_json: bool = False, track: str | None = "none", profile: bool = False
) -> Iterator[Watched]:
    """Shows and records what a long command does, until the block ends.

    SIGTERM and Ctrl-C stop it at the next checkpoint. as_json: everything for a person goes to stderr. track: see
    :func:`cgankd.core.trackers.choose`. An error is recorded in the status file, and goes on.
    """
    if quiet and as_json:
        raise UserError("--quiet and --json exclude each other; allowed: one of them")
    from cgankd.core.status_file import StatusFile, same_command
    from cgankd.core.stopping import saving_on_ctrl_c, stopping_on_sigterm
    from cgankd.core.trackers import NONE, Tracker, choose
    from cgankd.core.views import JsonLines, view
    from cgankd.core.watching import Watched

    outputs: list[Output] = [StatusFile()]
    if (tracker := choose(track)) != NONE:
        outputs.append(Tracker(tracker, with_training=track is None))
    if as_json:
        outputs.append(JsonLines(sys.stdout))
    elif not quiet:
        outputs.append(view(console))
    if profile:
        from cgankd.core.profiling import Profile  # imported here, because it imports torch

        outputs.append(Profile(console))
    alone = saving_on_ctrl_c(lambda: ranks.count() == 1)
    with _people_at_stderr(as_json), stopping_on_sigterm(), alone, Watched(outputs) as watched:
        try:
            yield watched
        except BaseException as error:
            end = ending(error) or Ending(FAILED, f"{type(error).__name__}: {error}")
            watched.stop(end.reason, end.code, same_command())
            raise


@contextmanager
def silenced(quiet: bool) -> Iterator[None]:
    """In this block the console prints nothing, if ``quiet``."""
    before, console.quiet = console.quiet, quiet or console.quiet
    try:
        yield
    finally:
        console.quiet = before


@contextmanager
def one_loop(quiet: bool = False, at_stderr: bool = False) -> Iterator[Watched]:
    """Shows a loop of a short command, such as a download. at_stderr: where stdout is for the result alone."""
    from cgankd.core.views import view
    from cgankd.core.watching import Watched

    with _people_at_stderr(at_stderr), Watched([] if quiet else [view(console)]) as watched:
        yield watched


@contextmanager
def _people_at_stderr(redirected: bool) -> Iterator[None]:
    if not redirected:
        yield
        return
    console.file = sys.stderr
    try:
        yield
    finally:
        console.file = None  # type: ignore[assignment]  # sys.stdout again


def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the --out folder of a run")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print how far a run is, from any terminal, or how it ended."""
    from cgankd.core.status_file import as_lines, read_status

    record = read_status(folder)
    if as_json:
        typer.echo(json.dumps(record, indent=1))
        return
    for line in as_lines(folder, record):
        console.print(on_one_line(line), soft_wrap=True)
