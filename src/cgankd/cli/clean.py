"""``cgankd clean``: show the size of a run's folder, and delete what is no longer needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cgankd.cli.screen import console
from cgankd.core.errors import UserError
from cgankd.core.paths import check_there


def clean(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the --out folder of a run, a table or an ablation")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be deleted")] = False,
    stopped: Annotated[
        bool, typer.Option("--stopped", help="also delete the work of stopped stages; they then start again")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Delete files that no finished run uses. Shows their sizes first; results and reports stay."""
    check_there(folder)
    from cgankd.core import cleaning
    from cgankd.core.run_folder import HeldFolder

    cleaning.contents(folder)  # raises before the lock is written there
    if dry_run:  # writes nothing, so it needs no lock, which a read-only folder would refuse
        _clean(folder, dry_run, stopped, yes)
        return
    held = HeldFolder(folder, command="", option="DIR")
    try:
        _clean(folder, dry_run, stopped, yes)
    finally:
        held.close()


def _clean(folder: Path, dry_run: bool, stopped: bool, yes: bool) -> None:
    from cgankd.core import cleaning

    contents = cleaning.contents(folder)
    lines = (
        ("used by finished runs", contents.used, False),
        ("newer, of a run that has not finished", contents.newer, False),
        ("stale: settings have changed since", contents.stale, True),
        ("stopped stages", contents.stopped, stopped),
        ("cache: computed again when needed", contents.cache, True),
    )
    table = Table("what", "folders", "MB", "", box=None, pad_edge=False)
    for column in (1, 2):
        table.columns[column].justify = "right"
    for title, folders, deletes in lines:
        table.add_row(
            title, str(len(folders)), _megabytes(folders), "to be deleted" if deletes and folders else "stays"
        )
    console.print(table)
    unneeded = [path for _, folders, deletes in lines if deletes for path in folders]
    if not unneeded or dry_run:
        console.print("nothing to delete" if not unneeded else "nothing was deleted (--dry-run)")
        return
    amount = _megabytes(unneeded)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"{folder}: {amount} MB can be deleted; needed: --yes, or --dry-run to only look")
        typer.confirm(f"delete {amount} MB?", abort=True)
    cleaning.remove(unneeded)
    console.print(f"deleted {amount} MB")


def _megabytes(folders: Sequence[Path]) -> str:
    from cgankd.core import cleaning

    return f"{cleaning.size(folders) / 1e6:,.1f}"
