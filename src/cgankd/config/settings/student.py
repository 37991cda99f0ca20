"""The student: its network, its training, and the settings that all rows of the table share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cgankd.config.settings.base import PathText, Settings, by_kind
from cgankd.config.settings.training import AugmentSettings, FitSettings, RandAugmentSettings


class FromScratch(Settings):
    """Rows start from random weights, as in the first version of the paper."""

    kind: Literal["scratch"] = "scratch"


class FromNOKD(Settings):
    """Rows start from the NOKD student, which was trained on labels alone, as in the final paper."""

    kind: Literal["nokd"] = "nokd"
    learning_rate: float = Field(0.01, gt=0, description="peak learning rate, in place of fit.learning_rate")


class FromWeights(Settings):
    """All students, NOKD too, start from weights of another task; fit.learning_rate is the peak of all trainings."""

    kind: Literal["weights"] = "weights"
    file: PathText = Field(
        description="a .safetensors file, package:NAME or timm/NAME, as in teacher.start; a head that is missing and "
        "layers of another shape start from random weights"
    )


SHORT = by_kind("scratch")


def _expanded(value: Any) -> Any:
    """The short forms: a package, timm/NAME, or a file with a suffix, for the kind weights; and those of all kinds."""
    if isinstance(value, str) and (value.startswith(("package:", "timm/")) or Path(value).suffix):
        return {"kind": "weights", "file": value}
    if isinstance(value, Mapping) and "kind" not in value and "file" in value:
        return {"kind": "weights", **value}
    return SHORT.func(value)  # type: ignore[call-arg]


# One validator, because pydantic before 2.12 looks at the kind before the second of two has run.
Start = Annotated[FromScratch | FromNOKD | FromWeights, Field(discriminator="kind"), BeforeValidator(_expanded)]


class StudentSettings(Settings):
    """The small network; ``fit`` is for NOKD, ``transfer_steps`` for every row that is compared."""

    network: str = Field("resnet8", description="a network of `cgankd networks`, timm/NAME, or module:function")
    fit: FitSettings = FitSettings()
    transfer_steps: int = Field(4000, ge=1, description="optimiser steps of the control and of every distilled row")
    start: Start = Field(
        FromScratch(),
        description="what rows start from: scratch, nokd, or weights of another task (a .safetensors file, "
        "package:NAME or timm/NAME), from which NOKD starts too",
    )
    ships: Literal["last", "best"] = Field(
        "last",
        description="which of a student's weights count in the table and are exported: last (those at the end of its "
        "training) or best (those with the best validation score of about 25 during it)",
    )
    refit: bool = Field(
        False,
        description="once the best student is chosen, train it again, with the validation images among the labelled "
        "ones (so too a teacher that learns from them), and ship that; generated images stay as they are; not with a "
        "teacher that is a file of predictions",
    )
    real_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of labelled images in a batch, where there are others too; none: every image equally often",
    )
    strong_augment: AugmentSettings = Field(
        AugmentSettings(randaugment=RandAugmentSettings(), cutmix=1.0), description="augmentation of the row augment"
    )
    temperature: float = Field(4.0, gt=0, description="classes: softens probabilities, in kd and similar methods")
    label_weight: float | None = Field(None, ge=0, description="kd: weight of labels; none: .1 classes, .5 scalar")
    teacher_weight: float | None = Field(None, ge=0, description="kd: weight of teacher; none: .9 classes, .5 scalar")
    method_settings: dict[str, dict[str, float]] = Field(
        {}, description="settings of methods by name, such as crd: {weight: 0.8}; `cgankd methods NAME` lists them"
    )
