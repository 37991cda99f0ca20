"""``cgankd init``: look at a data set, and write a recipe that fits it and this machine."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cgankd.cli.recipes import SKIP_BAD, Overrides, SkipBad
from cgankd.cli.screen import console
from cgankd.cli.watch import one_loop
from cgankd.core.addresses import is_remote
from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.paths import IMAGE_FILES, RECIPE, is_file, is_folder, portable
from cgankd.core.run_text import duration
from cgankd.core.terminal import on_one_line

if TYPE_CHECKING:
    from cgankd.core.progress import Bar, Progress
    from cgankd.core.run_plan import Expected
    from cgankd.core.watching import Watched
    from cgankd.planning.look import Look
    from cgankd.planning.plan import Plan

BUDGET = "30m"
OVER = 1.1  # times the budget that a run may take by the measurement
BUDGET_HELP = "how long the run may take here: 20m, 2h"
Budget = Annotated[str, typer.Option("--budget", help=BUDGET_HELP)]
RunBudget = Annotated[
    str | None, typer.Option("--budget", help=f"{BUDGET_HELP}; for images, not for a recipe; default {BUDGET}")
]


def init(
    source: Annotated[
        str,
        typer.Argument(
            help="a folder, .csv, .npz, .h5, .parquet or .tar with images and labels, the address of one, or hf://owner/name"
        ),
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="the recipe; default NAME.yaml")] = None,
    budget: Budget = BUDGET,
    skip_bad: SkipBad = False,
) -> None:
    """Look at a data set, and write a recipe that fits it and this machine.

    Overrides are data settings (label_column=age), or settings of the recipe with their full keys (runtime.threads=2).
    """
    path = out or Path(f"{_name(source)}.yaml")
    if path.suffix not in {".yaml", ".yml"}:
        raise UserError(f"--out {path} is no name of a recipe; needed: one that ends in .yaml, such as {path}.yaml")
    if path.exists():
        raise UserError(f"{path} exists; give --out another name, or remove it")
    with one_loop() as progress:
        plan, text = make(source, [*map(_full, overrides or []), *[SKIP_BAD] * skip_bad], budget, progress)
    from cgankd.core.files import write_text

    write_text(path, text)
    console.print(
        f"{path} written. cgankd run {shlex.quote(str(path))} takes about {duration(plan.total)}.", soft_wrap=True
    )


def is_source(name: str) -> bool:
    """Whether a word in a recipe's place names images of the user's own."""
    file = Path(name).suffix.lower() in IMAGE_FILES and is_file(Path(name))
    address = is_remote(name) and Path(name).suffix.lower() not in {".yaml", ".yml"}
    return is_folder(Path(name)) or file or address or name.startswith("hf://")


def check_exists(name: str) -> None:
    """UserError where what the user wants to run is neither images nor a recipe of any command."""
    from cgankd.cli.recipes import homes

    ready = [known for home in homes().values() for known in home.ready()]
    if name in ready or is_source(name) or is_file(Path(name)):
        return
    here = [path.name for path in Path().iterdir() if path.is_dir() or path.suffix in {".yaml", ".yml"}]
    hint = did_you_mean(name.rstrip("/"), [*here, *ready])
    raise UserError(
        f"{name!r} is neither images (a folder, a .csv, .npz, .h5, .parquet or .tar file, or the address of one), nor "
        f"a YAML file, nor a ready recipe{hint}; cgankd recipes lists the ready ones"
    )


def recipe_for(
    source: str, overrides: list[str], budget: str | None, out: Path | None, progress: Watched, deadline: float
) -> tuple[str, list[str]]:
    """The recipe file of a data set, written by :func:`init` unless it exists; and the overrides that remain.

    out: the folder of the run, which is checked before the images are looked at, and which shows how far the look is.
    deadline: in time.monotonic's seconds; OutOfTime is raised where looking takes longer.
    """
    from cgankd.config import recipe
    from cgankd.config.settings import DataSettings
    from cgankd.core.files import write_text
    from cgankd.data.apart import check_apart

    path = Path(f"{_name(source)}.yaml")
    names = set(DataSettings.model_fields)
    overrides = [f"data.{word}" if word.partition("=")[0] in names else word for word in overrides]
    # checked before minutes of looking
    checked = recipe.from_tree({"name": _name(source), "data": {"source": source}}, overrides, where=f"run {source}")
    if checked.runtime.devices * checked.runtime.nodes > 1:
        raise UserError(f"several devices are for a recipe, but {source} is images; cgankd init {source} writes one")
    _seconds(budget or BUDGET)
    folder, settings = out or Path("runs") / portable(checked.name), overrides
    check_apart(folder, checked.data)
    if path.exists():
        kept = _kept_settings(path, source, budget, folder)
        if kept is None:
            return str(path), overrides
        given = {word.partition("=")[0] for word in overrides}
        settings = [*(word for word in kept if word.partition("=")[0] not in given), *overrides]
    budget = budget or BUDGET
    with _held(folder, checked.name, progress):
        plan, text = make(source, settings, budget, progress, deadline)
    progress.rest()
    write_text(path, text)
    console.print(f"{path} written. The run takes about {duration(plan.total)}.", soft_wrap=True)
    return str(path), overrides


def _kept_settings(path: Path, source: str, budget: str | None, folder: Path) -> tuple[str, ...] | None:
    """The user's settings in a recipe that has to be written anew for another budget; None: the recipe is used as it
    is. UserError where it neither fits nor may be replaced."""
    from cgankd.planning.origin import origin_of

    origin = origin_of(path)
    if origin is not None and not _same_source(origin.source, source):
        raise UserError(
            f"{path} was made for {origin.source}, not for {source}; rename or delete {path}, or write another recipe: "
            f"cgankd init {source} --out OTHER.yaml"
        )
    going_on = ""
    made = "" if origin is None else f"; it was made for --budget {origin.budget}"
    if budget is None or (origin is not None and _seconds(origin.budget) == _seconds(budget)):
        console.print(f"{path} is used as it is{made}", soft_wrap=True)
        return None
    if origin is None:
        why = "does not say for which --budget it was made"
    elif origin.edited:
        why = f"was made for --budget {origin.budget} and was edited since"
    elif _trained(folder):
        file = folder / RECIPE
        why = f"was made for --budget {origin.budget}, and {folder} holds what was trained with {file}"
        going_on = f"; cgankd run {shlex.quote(str(file))} --out {shlex.quote(str(folder))} goes on there"
    else:
        console.print(
            f"{path} was made for --budget {origin.budget}, and {folder} holds nothing that was trained yet, so it is "
            "written anew",
            soft_wrap=True,
        )
        return origin.settings
    raise UserError(
        f"{path} {why}; delete {path} to have it made for --budget {budget}, or leave --budget out to use it as it is"
        f"{going_on}"
    )


def _same_source(one: str, other: str) -> bool:
    return one == other or ("://" not in other and Path(one).resolve() == Path(other).resolve())


def _trained(folder: Path) -> bool:
    """Whether a training has begun in the folder of a run."""
    return any(any((folder / part).glob("train_*")) for part in ("artifacts", "work"))


def expected(name: str, overrides: Sequence[str]) -> Expected | None:
    """What the recipe file of this name says of the run's time; None where it says nothing."""
    from cgankd.core.run_plan import Expected
    from cgankd.planning.origin import origin_of

    origin = origin_of(Path(name)) if is_file(Path(name)) else None
    if origin is None:
        return None
    same = not origin.edited and set(overrides) <= set(origin.settings)
    return Expected(origin.budget, _seconds(origin.budget), origin.parts if same else {})


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


def make(
    source: str, changes: Sequence[str], budget: str, progress: Progress, deadline: float = math.inf
) -> tuple[Plan, str]:
    """The plan and the recipe's text; prints what was found and chosen. changes: settings with their full keys.

    Raises UserError where the budget is too short, and OutOfTime where ``deadline`` has passed.
    """
    seconds, started = _seconds(budget), time.monotonic()
    limit = OVER * seconds
    from cgankd.config import recipe
    from cgankd.core.runtime import make_fabric
    from cgankd.data.remote import at_hand
    from cgankd.pipeline import preflight
    from cgankd.planning.look import look, smaller
    from cgankd.planning.origin import signed
    from cgankd.planning.plan import make_plan
    from cgankd.planning.text import as_yaml

    whole = recipe.from_tree({"data": {"source": source}}, changes, where=f"init {source}")
    preflight.resolve(whole)  # refuses now what the run would refuse
    asked, runtime = whole.data, whole.runtime
    fixed = asked.model_dump(exclude_unset=True, exclude={"source"}, mode="json")
    others = [change for change in changes if not change.startswith("data.")]
    fabric = make_fabric(runtime.device, runtime.precision, runtime.threads)

    def planned(fixed: Mapping[str, object], larger: Plan | None = None) -> tuple[Look, Plan]:
        with at_hand(asked.source, progress), _until(deadline, progress, "reading images", 1) as bar:
            looked = look(asked.source, fixed, lambda done, total: bar.to(done / total))
        data = {"source": asked.source, **{name: getattr(looked.settings, name) for name in looked.reasons}}
        measuring = f"measuring a few steps of each network at {looked.splits.train.size[1]} pixels"
        console.print(f"{measuring} ...")
        with _until(deadline, progress, measuring, 0) as bar:
            left = max(1.0, seconds - (time.monotonic() - started))  # the look and the measurements take part of it
            speeds = None if larger is None else larger.speeds
            return looked, make_plan(data, _name(source), looked.splits, fabric, left, others, speeds, bar, limit)

    looked, plan = planned(fixed)
    tried = [(looked, plan)]
    while plan.total > limit and (side := smaller(looked, limit / plan.total)) is not None:
        console.print(
            f"about {duration(plan.total)} with {looked.splits.train.size[1]} pixels, so {side} pixels are tried"
        )
        looked, plan = planned({**fixed, "size": side}, plan)
        reasons = {**looked.reasons, "size": "smaller images, to keep to the budget"}
        looked = dataclasses.replace(looked, reasons=reasons)
        tried.append((looked, plan))
    if plan.total > limit:  # no size is small enough, so details are only given up where that saves time
        looked, plan = next(pair for pair in tried if pair[1].total <= 1.1 * plan.total)
    for fact in looked.facts:
        console.print(on_one_line(fact), soft_wrap=True)
    for name, reason in looked.reasons.items():
        value = getattr(looked.settings, name)
        console.print(on_one_line(f"data.{name}={value}: {reason}"), soft_wrap=True)
    if plan.total > limit:
        raise UserError(_advice(plan, budget))
    return plan, signed(as_yaml(looked, plan), source, changes, budget, plan.seconds)


def _full(override: str) -> str:
    """An override of ``init`` with its full key; a key of no part of a recipe is one of the data settings."""
    from cgankd.config import recipe

    return override if re.split(r"[.=]", override)[0] in recipe.Recipe.model_fields else f"data.{override}"


@contextmanager
def _until(deadline: float, progress: Progress, title: str, total: float) -> Iterator[Bar]:
    """A passing bar, whose loop ends with OutOfTime at the deadline, and where the process is asked to stop."""
    from cgankd.core.progress import Bar
    from cgankd.core.stopping import stop_in_time

    with progress.passing(title, total) as shown:

        class Until(Bar):
            def to(self, done: float, note: str = "") -> None:
                stop_in_time(deadline)
                shown.to(done, note)

        yield Until()


def _advice(plan: Plan, budget: str) -> str:
    from cgankd.planning.look import SIZES

    size = plan.recipe.data.size
    smaller = [side for side in SIZES if size is not None and side < size]  # where the user gave none, all were tried
    return (
        f"--budget {budget} is too short, because with fewer steps the networks would hardly be trained. Give at least "
        f"--budget {math.ceil(plan.total / 60)}m"
    ) + (f", or smaller images with data.size={min(smaller)}" if smaller else "")


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
