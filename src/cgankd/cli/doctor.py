"""``cgankd doctor``: print what this installation and machine can do, and what to mend."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from cgankd.cli.screen import console
from cgankd.core.terminal import on_one_line


def doctor(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Check this installation and machine. Says what to do about each problem; exit code 1 if runs can't work."""
    from cgankd.planning.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps(findings.as_json(), indent=1))
        raise typer.Exit(0 if findings.usable else 1)
    table = Table(box=None, pad_edge=False, show_header=False)
    for section, facts in findings.facts.items():
        for number, (name, value) in enumerate(facts.items()):
            values = value if isinstance(value, list) else [value]
            table.add_row("" if number else section, name.replace("_", " "), on_one_line("; ".join(map(str, values))))
    console.print(table)
    for problem in findings.problems:
        console.print(f"{'!' if problem.needed else '-'} {on_one_line(problem.text)}", soft_wrap=True)
    ending = "nothing to mend" if not findings.problems else "runs work here; see the notes above"
    console.print(f"\n{ending if findings.usable else 'runs do not work here until what ! names is mended'}")
    raise typer.Exit(0 if findings.usable else 1)
