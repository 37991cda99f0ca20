"""Find the recipe that the user typed: the name of a ready recipe, or a YAML file, with overrides."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cgankd.cli import completion
from cgankd.cli.screen import console
from cgankd.core.errors import UserError

Devices = Annotated[
    int | None,
    typer.Option("--devices", min=1, help="as runtime.devices: train on several GPUs of this machine, a process each"),
]
Nodes = Annotated[
    int | None,
    typer.Option("--num-nodes", min=1, help="as runtime.nodes: train on several machines, each with this command"),
]
Strategy = Annotated[
    str | None,
    typer.Option("--strategy", help="as runtime.strategy: ddp, or fsdp for a teacher that no device can train whole"),
]
Overrides = Annotated[list[str] | None, typer.Argument(help="settings as key=value, such as seeds=[0,1]")]
Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="a ready recipe (cgankd recipes) or a YAML file",
        autocompletion=completion.recipe_names,
    ),
]
RecipeOrImages = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="a ready recipe (cgankd recipes), a YAML file, or a folder of images",
        autocompletion=completion.recipe_names,
    ),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option("--max-minutes", min=0, help="stop after this time with exit code 75; the same command continues"),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="go on without images that can't be read or have no label; rejected.csv lists them"
    ),
]
SKIP_BAD = "data.skip_bad=true"


def load(command: str, name: str, overrides: list[str] | None) -> Any:
    """A recipe of ``command``; a recipe of another command is a UserError that names that command."""
    modules = homes()
    for other, module in modules.items():
        if name in module.ready() and name not in modules[command].ready():
            raise UserError(
                f"recipe {name!r} is for cgankd {other}, not for cgankd {command}; ready recipes: "
                f"{', '.join(modules[command].ready())}"
            )
    return modules[command].load(name, overrides or [])


def with_devices(
    overrides: list[str], devices: int | None, nodes: int | None, strategy: str | None = None
) -> list[str]:
    """The overrides with the numbers of devices and of machines, and how they share networks, where they are given."""
    given = {"runtime.devices": devices, "runtime.nodes": nodes, "runtime.strategy": strategy}
    return [*overrides, *(f"{setting}={value}" for setting, value in given.items() if value is not None)]


def homes() -> dict[str, Any]:
    """Command -> the module that lists and loads its recipes."""
    from cgankd.config import recipe
    from cgankd.continual import settings as continual_settings
    from cgankd.lm import settings as lm_settings

    return {"run": recipe, "continual": continual_settings, "lm": lm_settings}


def list_recipes(*commands: str) -> None:
    """Print the ready recipes of these commands."""
    table = Table("recipe", "command", "what it is", box=None, pad_edge=False)
    for command, home in homes().items():
        for name in home.ready() if command in commands else ():
            table.add_row(name, command, home.load(name).description)
    console.print(table)
