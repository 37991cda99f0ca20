"""The commands table and ablate: many runs in one folder, several at once where wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cgankd.cli import completion, watch, workers
from cgankd.cli.recipes import MaxMinutes, Overrides, Recipe, load
from cgankd.cli.screen import console
from cgankd.core.errors import UserError
from cgankd.core.paths import ABLATION, TABLE, portable

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE... [KEY=VALUE...]",
        help="recipes, one table each, and overrides",
        autocompletion=completion.recipe_names,
    ),
]
Students = Annotated[
    str,
    typer.Option(
        "--students",
        help="networks: cnn16,resnet8; default the recipe's",
        autocompletion=completion.network_lists,
    ),
]
Methods = Annotated[
    str,
    typer.Option(
        "--methods",
        help="dkd,kd+crd or all: each alone and with cGAN-KD; default the recipe's rows",
        autocompletion=completion.method_lists,
    ),
]


def table(
    words: Words,
    students: Students = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--settings", help="overrides for a column: 'data.train_size=400 seeds=[0,1]'; can be repeated"),
    ] = None,
    methods: Methods = "",
    seeds: Annotated[str, typer.Option("--seeds", help="such as 0,1,2; default the recipe's")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="folder; default runs/table-RECIPE")] = None,
    quiet: watch.Quiet = False,
    jobs: workers.Jobs = None,
    executor: workers.OnExecutor = "processes",
    resources: workers.Resources = "",
    max_minutes: MaxMinutes = None,
) -> None:
    """Run recipes x settings x students. They share stages, and the tables are like the paper's."""
    names, overrides = _split_words(words, seeds)
    folder = out or Path("runs") / portable("table-{}".format("-".join(Path(name).stem for name in names)))
    for name in names:
        load("run", name, overrides)  # raises for wrong settings before torch is imported
    from cgankd.core.stopping import deadline_in
    from cgankd.experiments import text
    from cgankd.experiments.table import make_table

    where = workers.executor(executor, jobs, resources)
    with watch.watching(quiet) as progress:
        results = make_table(
            names,
            overrides,
            students=_split_list(students),
            settings=settings or [],
            methods=_split_list(methods),
            out=folder,
            progress=progress,
            deadline=deadline_in(max_minutes),
            executor=where,
        )
        progress.finish(results=str(folder / TABLE))
    typer.echo(text.as_markdown(results), nl=False)
    console.print(f"\n{folder}: table.md, table.csv, table.json, pictures", soft_wrap=True)


def ablate(
    name: Recipe,
    overrides: Overrides = None,
    images: Annotated[
        str,
        typer.Option("--images", help="values of M: 1000,3000,10000; 0 and the recipe's own M are always included"),
    ] = "",
    labels: Annotated[
        str,
        typer.Option("--labels", help="numbers of labelled images: 50,100,200; the recipe's own is always included"),
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", help="folder; default runs/ablate-RECIPE")] = None,
    quiet: watch.Quiet = False,
    jobs: workers.Jobs = None,
    executor: workers.OnExecutor = "processes",
    resources: workers.Resources = "",
    max_minutes: MaxMinutes = None,
) -> None:
    """Plot what each step of cGAN-KD adds. Also plots the error against the number of generated images or of labels."""
    folder = out or Path("runs") / portable(f"ablate-{load('run', name, overrides).name}")
    from cgankd.core.stopping import deadline_in
    from cgankd.experiments.ablation import ablate as draw

    where = workers.executor(executor, jobs, resources)
    with watch.watching(quiet) as progress:
        draw(
            name,
            overrides or [],
            images=_split_list(images),
            labels=_split_list(labels),
            out=folder,
            progress=progress,
            deadline=deadline_in(max_minutes),
            executor=where,
        )
        progress.finish(results=str(folder / ABLATION))
    console.print(f"{folder / 'ablation.html'}  (open it in a browser)", soft_wrap=True)


def _split_list(text: str) -> list[str]:
    """The items of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _split_words(words: list[str], seeds: str) -> tuple[list[str], list[str]]:
    """The recipes, and the overrides: the words with an equals sign."""
    names = [word for word in words if "=" not in word]
    if not names:
        from cgankd.config import recipe

        raise UserError(f"no recipe among {' '.join(words)!r}; ready recipes: {', '.join(recipe.ready())}")
    return names, [word for word in words if "=" in word] + ([f"seeds=[{seeds}]"] if seeds else [])
