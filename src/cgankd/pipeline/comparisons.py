"""The rows of the table: what the student of each minimises, what it sees, and for how long."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

from cgankd import distill
from cgankd.config.settings import (
    AugmentSettings,
    FilterSettings,
    NoSubsampling,
    StudentSettings,
    SynthesisSettings,
)
from cgankd.tasks import Task


@dataclasses.dataclass(frozen=True)
class Ablation:
    """How far generated images are processed, in place of what the settings say. replace: none or hard."""

    subsample: bool
    filter: bool
    replace: str

    def applied(self, settings: SynthesisSettings) -> SynthesisSettings:
        """The settings with the steps that are left out or always taken."""
        changes: dict[str, Any] = {"replace": self.replace}
        if not self.subsample:
            changes["subsampling"] = NoSubsampling()
        changes["filter"] = (settings.filter or FilterSettings()) if self.filter else None
        return settings.model_copy(update=changes)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    fakes: whether its student sees generated images. pseudo: in their place, the real images that nobody labelled,
    with the teacher's labels. strong: views by ``student.strong_augment``. longer: trained for ``transfer_steps``, as
    the control is; else for the NOKD student's own steps.
    """

    method: str = distill.SUPERVISED
    fakes: bool = False
    ablation: Ablation | None = None
    pseudo: bool = False
    strong: bool = False
    longer: bool = True


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
FAKES = "cgan+"
MATCHING = "fm"
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
    if not wanted.fakes or wanted.ablation:
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


def views(compared: Row, student: StudentSettings, task: Task) -> AugmentSettings:
    """The random views of a row's training images.

    Of row ``augment`` those of ``student.strong_augment``, without mixed images where these have no label. Of rows with
    ``fm``, which asks the teacher about the very view, the same with MixUp in place of CutMix; for scalars MixUp alone,
    because a teacher's answer to changed brightness or contrast misleads (docs/research-notes.md).
    """
    plain = student.fit.augment
    strong = student.strong_augment
    strong = strong.model_copy(update={"flip": plain.flip}) if strong.flip is None else strong
    if MATCHING in distill.parts(compared.method):
        mixing = {"mixup": strong.mixup or 1.0, "cutmix": 0.0, "views": 0}
        return strong.model_copy(update=mixing if task.geometry_safe else {**mixing, "randaugment": None})
    if not compared.strong:
        return plain
    return strong if task.mixable else strong.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
