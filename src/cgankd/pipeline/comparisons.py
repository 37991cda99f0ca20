"""The rows of the comparison table: the loss, the training images and the training steps of each row's student."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

from cgankd import distill
from cgankd.config.settings import (
    AugmentSettings,
    FilterSettings,
    NoSubsampling,
    RandAugmentSettings,
    StudentSettings,
    SynthesisSettings,
)
from cgankd.core.errors import UserError, did_you_mean
from cgankd.tasks import Task


@dataclasses.dataclass(frozen=True)
class Ablation:
    """The steps of processing that an ablation row takes, instead of those of the settings. replace: none or hard."""

    subsample: bool
    filter: bool
    replace: str

    def applied(self, settings: SynthesisSettings) -> SynthesisSettings:
        """The settings with these steps turned on or off."""
        changes: dict[str, Any] = {"replace": self.replace}
        if not self.subsample:
            changes["subsampling"] = NoSubsampling()
        changes["filter"] = (settings.filter or FilterSettings()) if self.filter else None
        return settings.model_copy(update=changes)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    fakes: whether its student trains on generated images. pseudo: whether it trains on the unlabelled real images, with
    labels predicted by the teacher. strong: whether augmentation is ``student.strong_augment``. longer: trained for
    ``transfer_steps``, as the control; else for the steps of the NOKD student. views: how its images are changed, words
    of VIEWS; none: as the row's method says (:func:`views`).
    """

    method: str = distill.SUPERVISED
    fakes: bool = False
    ablation: Ablation | None = None
    pseudo: bool = False
    strong: bool = False
    longer: bool = True
    views: tuple[str, ...] = ()


ROWS = {
    "nokd": Row(longer=False),
    "nokd_longer": Row(),
    "augment": Row(strong=True),
    "pseudo": Row(pseudo=True),
    "kd": Row(method="kd"),
    "fm": Row(method="fm"),
    "cgan_raw": Row(fakes=True, ablation=Ablation(subsample=False, filter=False, replace="none")),
    "cgan_subsample": Row(fakes=True, ablation=Ablation(subsample=True, filter=False, replace="none")),
    "cgan_filter": Row(fakes=True, ablation=Ablation(subsample=True, filter=True, replace="none")),
    "cgan_replace": Row(fakes=True, ablation=Ablation(subsample=True, filter=True, replace="hard")),
    "cgan": Row(fakes=True),
    "cgan_kd": Row(method="kd", fakes=True),
}
FAKES, UNLABELLED = "cgan+", "pseudo"
MATCHING = "fm"
VIEWS = ("plain", "randaugment", "mixup", "cutmix")  # after a row's name: fm~mixup, kd~randaugment~cutmix
CONTROL = "nokd_longer"  # NOKD trained for as many steps as the other rows; gains are differences to it


def row(name: str) -> Row:
    """The row with this name: one of ROWS, or a distillation method, before which may stand cgan+, pseudo+ or
    cgan+pseudo+; then ~ and each of its VIEWS.

    >>> row("cgan+pkt@fake") == Row(method="pkt@fake", fakes=True)
    True
    >>> row("cgan+pseudo+fm") == Row(method="fm", fakes=True, pseudo=True)
    True
    >>> row("fm~mixup~cutmix") == Row(method="fm", views=("mixup", "cutmix"))
    True
    """
    base, *words = name.split("~")
    if base in ROWS:
        return dataclasses.replace(ROWS[base], views=tuple(words))
    method = base.removeprefix(FAKES)
    pseudo = method.split("+")[0] == UNLABELLED
    if pseudo:
        method = method.removeprefix(UNLABELLED).removeprefix("+") or distill.SUPERVISED
    return Row(method=method, fakes=base.startswith(FAKES), pseudo=pseudo, views=tuple(words))


def as_method(name: str) -> str:
    """The name of a method or combination, for ``Distiller.distill``. UserError for a row's, such as pseudo+fm."""
    compared = row(name)
    if compared.method == name:
        return name
    with_ = [f"generated={compared.fakes}", *["unlabelled=IMAGES"] * compared.pseudo]
    strengths = {"randaugment": {}, "mixup": 1.0, "cutmix": 1.0}
    words = ("randaugment", "cutmix") if compared.strong else compared.views
    if views := {word: strengths[word] for word in words if word in strengths}:
        with_.append(f"augment={ ({**views, 'views': 0}) }")
    raise UserError(
        f"method {name!r} is the name of a row; needed here: {compared.method!r} with {' and '.join(with_)}"
    )


def check_views(name: str) -> None:
    """UserError for views that are not known, or that the row can't have."""
    words = row(name).views
    if unknown := [word for word in words if word not in VIEWS]:
        problem = f"{unknown[0]!r} after ~ is not known{did_you_mean(unknown[0], VIEWS)}"
    elif len(set(words)) < len(words):
        problem = "a view is named twice"
    elif len(words) > 1 and "plain" in words:
        problem = "plain is named beside other views"
    elif words and (row(name).strong or not row(name).longer):
        problem = f"its views are those of student.{'strong_augment' if row(name).strong else 'fit.augment'}"
    else:
        return
    raise UserError(
        f"compare.methods holds {name!r}: {problem}; allowed: METHOD~plain, or one or more of "
        f"{', '.join(word for word in VIEWS if word != 'plain')}, each after a ~, such as fm~randaugment~mixup"
    )


def student_network(name: str, student: StudentSettings) -> str:
    """The network of row ``name``'s student: that of the recipe, with the layers that the row's methods add."""
    return distill.student_network(row(name).method, student.network)


def needs_pseudo_labels(name: str, student: StudentSettings, task: Task) -> bool:
    """Whether row ``name``'s student learns from the teacher's labels of unlabelled images. ``fm`` reads no label, and
    a teacher may charge for one."""
    compared = row(name)
    return compared.pseudo and distill.MethodStack.of(compared.method, task, student).create(task).reads_labels


def partner(name: str) -> str | None:
    """The row that differs from row ``name`` only in having no generated images; None for rows without generated
    images and for ablation rows.

    >>> partner("cgan+dkd"), partner("cgan_kd"), partner("cgan"), partner("dkd"), partner("cgan_raw")
    ('dkd', 'kd', 'nokd_longer', None, None)
    >>> partner("cgan+kd+rkd@fake"), partner("cgan+rkd@fake"), partner("cgan+fm~mixup"), partner("cgan+pseudo+fm")
    ('kd', 'nokd_longer', 'fm~mixup', 'pseudo+fm')
    """
    compared = row(name)
    if not compared.fakes or compared.ablation:
        return None
    methods = [part for part in compared.method.split("+") if not part.endswith("@fake") and part != distill.SUPERVISED]
    return "~".join(["+".join([UNLABELLED] * compared.pseudo + methods) or CONTROL, *compared.views])


def pairs(names: Collection[str]) -> list[tuple[str, str]]:
    """(row with generated images, row without) for all such pairs in ``names``, in their order.

    >>> pairs(["nokd_longer", "cgan", "kd", "cgan_kd", "cgan+kd", "dkd"])
    [('cgan', 'nokd_longer'), ('cgan_kd', 'kd')]
    """
    by_row: dict[Row, tuple[str, str]] = {}  # because a row may be listed under two names
    for name in names:
        without = partner(name)
        if without is not None and without in names:
            by_row.setdefault(row(name), (name, without))
    return list(by_row.values())


def both_ways(methods: Iterable[str]) -> list[str]:
    """The rows that compare each method with and without generated images, after those without a method.

    >>> both_ways(["dkd", "kd+crd"])
    ['nokd_longer', 'cgan', 'dkd', 'cgan+dkd', 'kd+crd', 'cgan+kd+crd']
    """
    names = [(partner(FAKES + method) or CONTROL, FAKES + method) for method in methods]
    return list(dict.fromkeys([CONTROL, "cgan", *(name for pair in names for name in pair)]))


def views(compared: Row, student: StudentSettings, task: Task) -> AugmentSettings:
    """The augmentation of a row's training images.

    Row ``augment``: ``student.strong_augment``, without mixed images where the task gives them no label. Rows with
    ``fm``, which matches teacher outputs for the augmented images: the same with MixUp instead of CutMix. For scalars
    MixUp alone, because teacher outputs at changed brightness or contrast are misleading (docs/research-notes.md).
    A row that names its views gets exactly these, with the strengths of ``student.strong_augment``.
    """
    plain, strong = student.fit.augment, student.strong_augment
    strong = strong.model_copy(update={"flip": plain.flip}) if strong.flip is None else strong
    if compared.views:
        return _named(compared.views, plain, strong)
    if MATCHING in distill.parts(compared.method):
        words = ("randaugment", "mixup") if task.geometry_safe and strong.randaugment else ("mixup",)
        return _named(words, plain, strong)
    if not compared.strong:
        return plain
    return strong if task.mixable else strong.model_copy(update={"mixup": 0.0, "cutmix": 0.0})


def _named(words: Collection[str], plain: AugmentSettings, strong: AugmentSettings) -> AugmentSettings:
    """The views of these words. Strong ones never recur, but mixes do if the settings say so."""
    if set(words) == {"plain"}:
        return plain
    changes = {
        "randaugment": (strong.randaugment or RandAugmentSettings()) if "randaugment" in words else None,
        "mixup": (strong.mixup or 1.0) if "mixup" in words else 0.0,
        "cutmix": (strong.cutmix or 1.0) if "cutmix" in words else 0.0,
    }
    return strong.model_copy(update={**changes, "views": 0})
