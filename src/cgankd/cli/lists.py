"""The commands that list recipes, methods and networks, and show all settings of a recipe."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from cgankd.cli import completion
from cgankd.cli.recipes import Overrides, homes, list_recipes
from cgankd.cli.screen import console

OTHER_METHODS = (
    "Other commands have their own methods: cgankd continual (gkd, tkd, each also with +ta, teacher adaptation) and "
    "cgankd lm (kd, atkd, onpolicy, skd)."
)


def recipes() -> None:
    """List the ready recipes and their commands."""
    list_recipes(*homes())


def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[METHOD]", help="a method to describe in full", autocompletion=completion.method_names),
    ] = None,
) -> None:
    """List the distillation methods. With a name, show its loss, needs and settings."""
    from cgankd.distill import catalogue

    if name is None:
        table = Table("method", "matches", "tasks", "needs", "paper", box=None, pad_edge=False)
        for line in catalogue.lines():
            table.add_row(*line)
        console.print(table)
        more = "Before a method: cgan+ (generated images too), pseudo+ (unlabelled images too), cgan+pseudo+ (both)."
        console.print(f"\nMethods can be combined: kd+rkd. {more} {OTHER_METHODS}")
        return
    facts, text = catalogue.details(name)
    table = Table(box=None, pad_edge=False, show_header=False)
    for heading, fact in facts.items():
        table.add_row(heading, fact)
    console.print(table)
    console.print(f"\n{text}")


def networks() -> None:
    """List the networks by name and size."""
    from cgankd.nets import zoo

    table = Table("network", "parameters at 3x32x32, 10 classes", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, count in zoo.parameter_counts(in_channels=3, num_outputs=10, image_size=(32, 32)).items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    console.print(
        "also: timm/NAME (pip install 'cgankd[timm]'), and your own as module:function; +vam after a name adds "
        "attention over blocks of its filters"
    )


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="a ready recipe or a YAML file", autocompletion=completion.all_recipe_names
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Print all settings of a recipe as YAML."""
    from cgankd.config import recipe, yaml_config

    home = next((home for home in homes().values() if name in home.ready()), recipe)
    typer.echo(yaml_config.to_yaml(home.load(name, overrides or [])), nl=False)
