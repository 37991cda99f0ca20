"""The rows of the table."""

from __future__ import annotations

from pydantic import Field, field_validator

from cgankd.config.settings.base import Settings


class CompareSettings(Settings):
    """The rows of the table."""

    methods: tuple[str, ...] = Field(
        ("nokd", "nokd_longer", "kd", "cgan", "cgan_kd"),
        description="nokd, nokd_longer (the control), augment, pseudo, any distillation method such as kd or kd+pkt "
        "(cgankd methods lists them), cgan, and cgan+METHOD (cgan_kd is cgan+kd)",
    )
    ablation: bool = Field(False, description="also raw fakes, + subsampling, + filter, + replacement")

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if not methods or len(set(methods)) != len(methods):
            raise ValueError("a method is listed twice, or none is listed; allowed: distinct methods, at least one")
        return methods
