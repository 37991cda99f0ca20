"""The student: its network, its training, and what the rows of the table share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgankd.config.settings.base import Settings, by_kind
from cgankd.config.settings.training import AugmentSettings, FitSettings, RandAugmentSettings


class FromScratch(Settings):
    """Rows start from random weights, as in the first version of the paper."""

    kind: Literal["scratch"] = "scratch"


class FromNOKD(Settings):
    """Rows start from the NOKD student, which learnt from labels alone, as in the final paper."""

    kind: Literal["nokd"] = "nokd"
    learning_rate: float = Field(0.01, gt=0, description="the peak, in place of fit.learning_rate")


class StudentSettings(Settings):
    """The small network; ``fit`` trains NOKD, ``transfer_steps`` every row that is compared."""

    network: str = Field("resnet8", description="a network of `cgankd networks`, timm/NAME, or module:function")
    fit: FitSettings = FitSettings()
    transfer_steps: int = Field(4000, ge=1, description="optimiser steps of the control and of every distilled row")
    start: Annotated[FromScratch | FromNOKD, Field(discriminator="kind"), by_kind("scratch")] = Field(
        FromScratch(), description="what rows start from: scratch or nokd"
    )
    real_share: float | None = Field(
        None, gt=0, lt=1, description="share of real images in a batch; none: all images equally often"
    )
    strong_augment: AugmentSettings = Field(
        AugmentSettings(randaugment=RandAugmentSettings(), cutmix=1.0), description="the views of row augment"
    )
    temperature: float = Field(4.0, gt=0, description="classes: of softened probabilities, in kd and its relatives")
    label_weight: float | None = Field(None, ge=0, description="kd: r, of the labels; none: .1 classes, .5 scalar")
    teacher_weight: float | None = Field(None, ge=0, description="kd: a, of the teacher; none: .9 classes, .5 scalar")
    method_settings: dict[str, dict[str, float]] = Field(
        {}, description="numbers of methods by name, as in crd: {weight: 0.8}; `cgankd methods NAME` lists them"
    )
