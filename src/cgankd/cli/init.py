"""``cgankd init``: look at a data set, and write a recipe that fits it and this machine."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cgankd.cli.recipes import SKIP_BAD, Overrides, SkipBad
from cgankd.cli.screen import console
from cgankd.cli.watch import one_loop
from cgankd.core.errors import UserError
from cgankd.core.paths import is_file, is_folder, portable
from cgankd.core.terminal import on_one_line

if TYPE_CHECKING:
    from cgankd.core.progress import Progress
    from cgankd.core.watching import Watched
    from cgankd.planning.look import Look
    from cgankd.planning.plan import Plan

BUDGET = "30m"
BUDGET_HELP = "how long the run may take here: 20m, 2h"
Budget = Annotated[str, typer.Option("--budget", help=BUDGET_HELP)]
RunBudget = Annotated[
    str | None, typer.Option("--budget", help=f"{BUDGET_HELP}; for images, not for a recipe; default {BUDGET}")
]


def init(
    source: Annotated[
        str, typer.Argument(help="a folder, .npz, .h5, .parquet, .tar or hf://owner/name with images and labels")
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="the recipe; default NAME.yaml")] = None,
    budget: Budget = BUDGET,
    skip_bad: SkipBad = False,
) -> None:
    """Look at a data set, and write a recipe that fits it and this machine. Overrides are data settings."""
    path = out or Path(f"{_name(source)}.yaml")
    if path.exists():
        raise UserError(f"{path} exists; give --out another name, or remove it")
    with one_loop() as progress:
        plan, text = make(source, [*(overrides or []), *[SKIP_BAD] * skip_bad], budget, progress)
    from cgankd.core.files import write_text

    write_text(path, text)
    if _too_long(plan, budget):
        console.print(f"! {_advice(plan, budget)}", soft_wrap=True)
    console.print(f"{path} written. cgankd run {path} takes about {_minutes(plan)}.", soft_wrap=True)


def is_source(name: str) -> bool:
    """Whether a word in a recipe's place names images of the user's own."""
    file = Path(name).suffix.lower() in {".npz", ".h5", ".hdf5", ".parquet", ".tar"} and is_file(Path(name))
    return is_folder(Path(name)) or file or name.startswith("hf://")


def recipe_for(
    source: str, overrides: list[str], budget: str | None, out: Path | None, progress: Watched
) -> tuple[str, list[str]]:
    """The recipe file of a data set, written by :func:`init` unless it exists; and the overrides that remain.

    out: the folder of the run, which is checked before the images are looked at, and which shows how far the look is.
    """
    from cgankd.config import recipe
    from cgankd.config.settings import DataSettings
    from cgankd.core.files import write_text

    path = Path(f"{_name(source)}.yaml")
    names = set(DataSettings.model_fields) - set(recipe.Recipe.model_fields)
    overrides = [f"data.{word}" if word.partition("=")[0] in names else word for word in overrides]
    # checked before minutes of looking
    checked = recipe.from_tree({"name": _name(source), "data": {"source": source}}, overrides, where=f"run {source}")
    if checked.runtime.devices * checked.runtime.nodes > 1:
        raise UserError(f"several devices are for a recipe, but {source} is images; cgankd init {source} writes one")
    _seconds(budget or BUDGET)
    if path.exists():
        ignored = "" if budget is None else f", so --budget {budget} has no effect"
        console.print(f"{path} exists and is used as it is{ignored}; without it, it is written anew", soft_wrap=True)
        return str(path), overrides
    budget = budget or BUDGET
    own = [override for override in overrides if override.startswith("data.")]
    with _held(out or Path("runs") / portable(checked.name), checked.name, progress):
        plan, text = make(source, own, budget, progress)
    progress.rest()
    if _too_long(plan, budget):
        raise UserError(_advice(plan, budget))
    write_text(path, text)
    console.print(f"{path} written. The run takes about {_minutes(plan)}.", soft_wrap=True)
    return str(path), [override for override in overrides if override not in own]


@contextmanager
def _held(folder: Path, name: str, progress: Progress) -> Iterator[None]:
    """Holds the folder of the run that will follow, so that ``cgankd status`` can read there what is going on."""
    from cgankd.core.run_folder import HeldFolder, check_recipe

    check_recipe(folder, name)
    held = HeldFolder(folder, "run")
    progress.opened(folder)
    try:
        yield
    finally:
        progress.closed()
        held.close()


def make(source: str, overrides: list[str], budget: str, progress: Progress) -> tuple[Plan, str]:
    """The plan and the recipe's text; prints what was found and chosen."""
    seconds = _seconds(budget)
    from cgankd.config import recipe
    from cgankd.core.runtime import make_fabric
    from cgankd.planning.look import look, smaller
    from cgankd.planning.plan import make_plan
    from cgankd.planning.text import as_yaml

    changes = [override if override.startswith("data.") else f"data.{override}" for override in overrides]
    asked = recipe.from_tree({"data": {"source": source}}, changes, where=f"init {source}").data
    fixed = asked.model_dump(exclude_unset=True, exclude={"source"}, mode="json")
    fabric = make_fabric()

    def planned(fixed: Mapping[str, object]) -> tuple[Look, Plan]:
        with progress.passing("reading images", 1) as bar:
            looked = look(asked.source, fixed, lambda done, total: bar.to(done / total))
        data = {"source": asked.source, **{name: getattr(looked.settings, name) for name in looked.reasons}}
        measuring = f"measuring a few steps of each network at {looked.splits.train.size[1]} pixels"
        console.print(f"{measuring} ...")
        with progress.passing(measuring, 0):
            return looked, make_plan(data, _name(source), looked.splits, fabric, seconds)

    looked, plan = planned(fixed)
    while plan.total > 1.1 * seconds and (side := smaller(looked)) is not None:
        console.print(f"about {_minutes(plan)} with {looked.splits.train.size[1]} pixels, so {side} are tried")
        looked, plan = planned({**fixed, "size": side})
        reasons = {**looked.reasons, "size": "smaller images, to keep to the budget"}
        looked = dataclasses.replace(looked, reasons=reasons)
    for fact in looked.facts:
        console.print(on_one_line(fact), soft_wrap=True)
    for name, reason in looked.reasons.items():
        value = getattr(looked.settings, name)
        console.print(on_one_line(f"data.{name}={value}: {reason}"), soft_wrap=True)
    return plan, as_yaml(looked, plan)


def _too_long(plan: Plan, budget: str) -> bool:
    return plan.total > 1.1 * _seconds(budget)


def _advice(plan: Plan, budget: str) -> str:
    return (
        f"--budget {budget} is too short: about {_minutes(plan)} are needed, because with fewer steps the networks "
        f"would hardly be trained. Give --budget {math.ceil(plan.total / 60)}m, or smaller or fewer images, such as "
        "data.size=32 data.train_size=1000"
    )


def _minutes(plan: Plan) -> str:
    from cgankd.planning.text import minutes

    return minutes(plan.total)


def _name(source: str) -> str:
    return Path(source).resolve().stem


UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
TIME = r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|min|m|h)\s*"


def _seconds(budget: str) -> float:
    parts = re.findall(TIME, budget)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if re.fullmatch(f"(?:{TIME})+", budget) is None or seconds <= 0:
        raise UserError(f"--budget {budget!r} is no time; allowed: a number with s, m or h, such as 45m or 1h30m")
    return seconds
