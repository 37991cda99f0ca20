"""The settings of ``cgankd continual``, and where its recipes are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from cgankd.config import yaml_config
from cgankd.config.settings import AugmentSettings, DataSettings, FitSettings, RuntimeSettings, Seeds, Settings

Method = Literal["finetune", "gkd", "gkd+ta", "tkd", "tkd+ta", "joint"]


class FreshViews(AugmentSettings):
    """Random views that never repeat, because the outputs of an adapted teacher depend on the whole batch."""

    views: Literal[0] = Field(0, description="must be 0: views never repeat, and no teacher output is stored")
    mixup: float = Field(0.0, ge=0, le=0, description="must be 0: labels are not mixed")
    cutmix: float = Field(0.0, ge=0, le=0, description="must be 0: labels are not mixed")


class TaskFit(FitSettings):
    """Training on one task."""

    steps: int = Field(300, ge=1, description="optimiser steps of each task")
    augment: FreshViews = FreshViews()


class Continual(Settings):
    """A comparison of continual-learning methods on one data set."""

    name: str = Field("custom", description="name of the run: heading of the report and default folder under runs/")
    description: str = Field("", description="one sentence, which `cgankd recipes` prints")
    seeds: Seeds = Field(
        (0, 1, 2), description="a seed changes the order of the classes, the initial weights and the batches"
    )
    data: DataSettings = DataSettings()
    tasks: int = Field(5, ge=2, description="number of tasks, each with the same number of classes")
    network: str = Field("resnet8", description="a network of `cgankd networks`, or module:function")
    fit: TaskFit = TaskFit()
    methods: tuple[Method, ...] = Field(
        ("finetune", "gkd", "gkd+ta", "joint"),
        description="finetune (lower bound), gkd, tkd (distillation from the old model), gkd+ta, tkd+ta (with teacher "
        "adaptation), joint (upper bound)",
    )
    temperature: float = Field(2.0, gt=0, description="gkd, tkd: temperature T")
    weight: float = Field(10.0, gt=0, description="gkd, tkd: lambda, the weight of the distillation loss")
    exemplars: int = Field(0, ge=0, description="images of each old class that are kept; 0: none (paper)")
    runtime: RuntimeSettings = RuntimeSettings()

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        if not methods or len(set(methods)) != len(methods):
            raise ValueError("a method is listed twice, or there is none; allowed: distinct methods, at least one")
        return methods


def ready() -> dict[str, Path]:
    """Name -> file of every continual recipe that comes with the package."""
    return yaml_config.ready("cgankd.continual")


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Continual:
    """A ready continual recipe by name, or a YAML file, with ``key=value`` overrides; UserError as yaml_config.load."""
    return yaml_config.load(Continual, ready(), name_or_path, overrides)
