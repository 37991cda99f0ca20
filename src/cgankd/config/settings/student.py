"""The student."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import Settings
from cgankd.config.settings.training import AugmentSettings, FitSettings


class StudentSettings(Settings):
    """The small network; ``fit`` trains NOKD, ``transfer_steps`` every row that is compared."""

    network: str = "resnet8"
    fit: FitSettings = FitSettings()
    transfer_steps: int = Field(4000, ge=1, description="optimiser steps of the control and of every distilled row")
    start: Literal["scratch", "nokd"] = Field(
        "scratch", description="distilled rows start from new weights (v1) or from the NOKD student (final paper)"
    )
    finetune_learning_rate: float = Field(0.01, gt=0, description="peak rate where start is nokd")
    real_share: float | None = Field(
        None, gt=0, lt=1, description="share of real images in a batch; none: as many as their share of the images"
    )
    strong_augment: AugmentSettings = Field(
        AugmentSettings(randaugment=2, cutmix=1.0), description="the views of row augment"
    )
    temperature: float = Field(
        4.0, gt=0, description="of softened probabilities: kd and what is made of it, classes"
    )
    label_weight: float | None = Field(None, ge=0, description="KD: r; none: .1 classes, .5 scalar")
    teacher_weight: float | None = Field(None, ge=0, description="KD: a; none: .9 classes, .5 scalar")
    method_settings: dict[str, dict[str, float]] = Field(
        {}, description="numbers of other methods by name, as in crd: {weight: 0.8} (cgankd methods lists them)"
    )
