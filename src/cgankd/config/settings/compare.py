"""The rows of the table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cgankd.config.settings.base import Settings

CANDIDATES = (  # of the autopilot, in the order in which they are tried; the control is always in the table
    "nokd_longer",
    "augment",
    "kd",
    "fm~mixup",
    "fm~randaugment~mixup",
    "cgan_kd",
    "cgan+fm~plain",
    "cgan+fm~mixup",
    "cgan+fm~randaugment~mixup",
)
# further ones where data.unlabelled is given
UNLABELLED_CANDIDATES = ("pseudo+kd", "pseudo+fm~mixup", "pseudo+fm~randaugment~mixup")


class CompareSettings(Settings):
    """The rows of the table."""

    methods: Literal["auto"] | tuple[str, ...] = Field(
        ("nokd_longer", "augment", "kd", "fm", "cgan", "cgan_kd", "cgan+fm"),
        description="auto: the control and the best of several candidates by validation; or a list of rows: nokd, "
        "nokd_longer (the control), augment, any distillation method such as kd or kd+pkt (cgankd methods lists them), "
        "cgan and cgan+METHOD (cgan_kd is cgan+kd) with generated images, pseudo and pseudo+METHOD with unlabelled "
        "images, cgan+pseudo+METHOD with both; after a row's name its views, such as fm~randaugment~mixup: plain, "
        "randaugment, mixup, cutmix",
    )
    ablation: bool = Field(False, description="also raw fakes, + subsampling, + filter, + replacement")

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, methods: Literal["auto"] | tuple[str, ...]) -> Literal["auto"] | tuple[str, ...]:
        if methods != "auto" and (not methods or len(set(methods)) != len(methods)):
            raise ValueError("a method is listed twice, or none is listed; allowed: distinct methods, at least one")
        return methods

    @model_validator(mode="after")
    def _ablation_needs_rows(self) -> CompareSettings:
        if self.ablation and self.methods == "auto":
            raise ValueError("ablation adds rows to a list, but methods is auto; allowed: ablation=false, or a list")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The rows, or with ``auto`` the candidates."""
        return CANDIDATES if self.methods == "auto" else self.methods
