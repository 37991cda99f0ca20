"""Recipes by what the user typed: the name of a ready one, or a YAML file, with overrides."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cgankd.config import recipe
from cgankd.core.errors import UserError
from cgankd.core.terminal import plain_console

console = plain_console()

Overrides = Annotated[list[str] | None, typer.Argument(help="settings as key=value, such as seeds=[0,1]")]


def load(command: str, name: str, overrides: list[str] | None) -> Any:
    """A recipe of that command; UserError, which names the command, for another's."""
    places = homes()
    for other, home in places.items():
        if name in home.ready() and name not in places[command].ready():
            raise UserError(
                f"recipe {name!r} is one of cgankd {other}, not of cgankd {command}; ready recipes: "
                f"{', '.join(places[command].ready())}"
            )
    return places[command].load(name, overrides or [])


def homes() -> dict[str, Any]:
    """Command -> the module that lists and loads its recipes."""
    from cgankd.continual import settings as continual_settings
    from cgankd.lm import settings as lm_settings

    return {"run": recipe, "continual": continual_settings, "lm": lm_settings}


def list_recipes(*commands: str) -> None:
    table = Table("recipe", "command", "what it is", box=None, pad_edge=False)
    for command, home in homes().items():
        for name in home.ready() if command in commands else ():
            table.add_row(name, command, home.load(name).description)
    console.print(table)
