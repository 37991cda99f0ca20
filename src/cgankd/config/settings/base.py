"""The settings of every part of a run, typed: defaults, bounds and what each one is for."""

from __future__ import annotations

import typing
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("the same seed stands twice; allowed: distinct whole numbers")
    return seeds


Seeds = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_distinct)]
Decay = Annotated[float, Field(ge=0, lt=1)]
RatioWidths = Annotated[tuple[Annotated[int, Field(ge=32, multiple_of=8)], ...], Field(min_length=1)]


class Settings(BaseModel):
    """Base of all settings: typed, frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_as_one(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = typing.get_args(annotation := cls.model_fields[info.field_name or ""].annotation) or (annotation,)
        if isinstance(value, bool) and bool not in kinds and {int, float} & set(kinds):
            raise ValueError("a number is needed")
        return value
