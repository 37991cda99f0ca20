"""``cgankd clean``: what a run's folder holds, and freeing what nothing needs any more."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cgankd.core.errors import UserError
from cgankd.core.terminal import plain_console

console = plain_console()


def clean(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the --out folder of a run, a table or an ablation")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be freed")] = False,
    stopped: Annotated[
        bool, typer.Option("--stopped", help="also free the work of stages that were stopped; they begin anew then")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Show how much room a run's folder takes, and free what no finished run uses. Results and reports stay."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    from cgankd.core import cleaning
    from cgankd.core.run_folder import HeldFolder

    cleaning.contents(folder)  # before anything is written there
    held = HeldFolder(folder, command="")
    try:
        _clean(folder, dry_run, stopped, yes)
    finally:
        held.close()


def _clean(folder: Path, dry_run: bool, stopped: bool, yes: bool) -> None:
    from cgankd.core import cleaning

    contents = cleaning.contents(folder)
    lines = (
        ("used by finished runs", contents.used, False),
        ("made since, by a run that has not finished", contents.newer, False),
        ("stale: of settings that were changed", contents.stale, True),
        ("stages that were stopped", contents.stopped, stopped),
        ("cache: computed again where it is needed", contents.cache, True),
    )
    table = Table("what", "folders", "MB", "", box=None, pad_edge=False)
    for column in (1, 2):
        table.columns[column].justify = "right"
    for title, folders, frees in lines:
        table.add_row(title, str(len(folders)), _megabytes(folders), "to be freed" if frees and folders else "stays")
    console.print(table)
    freed = [path for _, folders, frees in lines if frees for path in folders]
    if not freed or dry_run:
        console.print("nothing to free" if not freed else "nothing was freed (--dry-run)")
        return
    amount = _megabytes(freed)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"{folder}: {amount} MB can be freed; needed: --yes, or --dry-run to only look")
        typer.confirm(f"free {amount} MB?", abort=True)
    cleaning.remove(freed)
    console.print(f"freed {amount} MB")


def _megabytes(folders: Sequence[Path]) -> str:
    from cgankd.core import cleaning

    return f"{cleaning.size(folders) / 1e6:,.1f}"
