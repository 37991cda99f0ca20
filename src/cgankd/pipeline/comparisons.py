"""The rows of the table: what the student of each minimises, what it sees, and for how long."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

from cgankd import distill
from cgankd.config.recipe import Recipe
from cgankd.config.settings import AugmentSettings, StudentSettings
from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.runtime import make_fabric
from cgankd.data.imageset import Splits
from cgankd.distill.limits import check_adversarial, check_answers_suffice
from cgankd.training.rehearsal import rehearse


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table."""

    method: str = distill.SUPERVISED
    fakes: bool = False
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)  # to the synthesis settings
    pseudo: bool = False  # in the fakes' place: the real images nobody labelled, with the teacher's labels
    strong: bool = False  # views by student.strong_augment
    longer: bool = True  # transfer_steps, as the control; else the NOKD student's own steps


ROWS = {
    "nokd": Row(longer=False),
    "nokd_longer": Row(),
    "augment": Row(strong=True),
    "pseudo": Row(pseudo=True),
    "kd": Row(method="kd"),
    "cgan_raw": Row(fakes=True, changes={"subsampling": "none", "filter": False, "replace": "none"}),
    "cgan_subsample": Row(fakes=True, changes={"filter": False, "replace": "none"}),
    "cgan_filter": Row(fakes=True, changes={"filter": True, "replace": "none"}),
    "cgan_replace": Row(fakes=True, changes={"filter": True, "replace": "hard"}),
    "cgan": Row(fakes=True),
    "cgan_kd": Row(method="kd", fakes=True),
}
FAKES = "cgan+"
CONTROL = "nokd_longer"  # NOKD trained for as many steps: what a gain is measured against


def row(name: str) -> Row:
    """The row called ``name``: one of ROWS, any distillation method, or cgan+ and a method.

    >>> row("cgan+pkt@fake") == Row(method="pkt@fake", fakes=True)
    True
    """
    if name in ROWS:
        return ROWS[name]
    return Row(method=name.removeprefix(FAKES), fakes=name.startswith(FAKES))


def student_network(name: str, student: StudentSettings) -> str:
    """The network of row ``name``'s student: the recipe's, with what the row's methods add to it."""
    return distill.student_network(row(name).method, student.network)


def partner(name: str) -> str | None:
    """The row that is row ``name`` without generated images; None where it has none, or an ablation's.

    >>> partner("cgan+dkd"), partner("cgan_kd"), partner("cgan"), partner("dkd"), partner("cgan_raw")
    ('dkd', 'kd', 'nokd_longer', None, None)
    >>> partner("cgan+kd+rkd@fake"), partner("cgan+rkd@fake")
    ('kd', 'nokd_longer')
    """
    wanted = row(name)
    if not wanted.fakes or wanted.changes:
        return None
    seen = [word for word in wanted.method.split("+") if not word.endswith("@fake") and word != distill.SUPERVISED]
    return "+".join(seen) or CONTROL


def pairs(names: Collection[str]) -> list[tuple[str, str]]:
    """(with generated images, without) for each row that is there both ways, in the order of ``names``.

    >>> pairs(["nokd_longer", "cgan", "kd", "cgan_kd", "cgan+kd", "dkd"])
    [('cgan', 'nokd_longer'), ('cgan_kd', 'kd')]
    """
    found: dict[str, tuple[str, str]] = {}  # by method, for a row may stand there by two names
    for name in names:
        without = partner(name)
        if without is not None and without in names:
            found.setdefault(row(name).method, (name, without))
    return list(found.values())


def both_ways(methods: Iterable[str]) -> list[str]:
    """The rows that compare each method alone and with generated images; first, no method at all.

    >>> both_ways(["dkd", "kd+crd"])
    ['nokd_longer', 'cgan', 'dkd', 'cgan+dkd', 'kd+crd', 'cgan+kd+crd']
    """
    made = [(partner(FAKES + method) or CONTROL, FAKES + method) for method in methods]
    return list(dict.fromkeys([CONTROL, "cgan", *(name for both in made for name in both)]))


def check_names(recipe: Recipe) -> None:
    """UserError for a row, or a method that has settings of its own, that nothing is known of or could be shown."""
    for name in recipe.student.method_settings:
        distill.find(name)
    for name in recipe.rows:
        if not row(name).fakes and name not in ROWS and (alone := partner(FAKES + name)) != name:
            raise UserError(
                f"compare.methods holds {name!r}, a row without generated images, so @fake has none to see; "
                f"allowed: {FAKES}{name}, and {alone}"
            )
        for method in distill.parts(row(name).method):
            if method not in distill.METHODS:
                known = [*ROWS, *distill.METHODS]
                raise UserError(
                    f"compare.methods holds {name!r}, which is not known{did_you_mean(method, known)}; allowed: "
                    f"{', '.join(ROWS)}, a method of `cgankd methods`, and cgan+ before one"
                )


def check(recipe: Recipe, splits: Splits, networks: Mapping[str, nn.Module]) -> None:
    """UserError for what a row can't do with these images, networks and settings, before anything is trained.

    networks: the recipe's, by name.
    """
    settings, source, votes = recipe.student, recipe.teacher.source, recipe.teacher.votes
    teacher = networks[recipe.teacher.network] if source is None and votes == "first" else None
    fabric = make_fabric("cpu", "fp32")
    for name in recipe.rows:
        wanted = row(name)
        augment = strong_views(settings) if wanted.strong else settings.fit.augment
        objective = distill.create(wanted.method, splits.task, settings)
        check_adversarial(objective, settings.fit)
        if source is not None:
            check_answers_suffice(objective, "teacher.source only answers")
        elif votes != "first":
            check_answers_suffice(objective, f"teacher.votes = {votes} makes one of several")
        student = networks[student_network(name, settings)]
        rehearse(student, teacher, objective, splits.task, splits.train, augment, fabric)
        if wanted.pseudo and not len(splits.unlabelled):
            raise UserError(
                f"compare.methods holds {name}, but {splits.name} has no unlabelled images, as all "
                f"{len(splits.pool):,} are the owner's; allowed: data.train_size under {len(splits.pool)}, or the "
                "other methods"
            )


def strong_views(student: StudentSettings) -> AugmentSettings:
    """The views of row ``augment``; what the recipe says of mirrors for the other rows holds here too."""
    strong = student.strong_augment
    return strong.model_copy(update={"flip": student.fit.augment.flip}) if strong.flip is None else strong
