"""What all settings share: strict types, no unknown keys, and alternatives that are told apart by ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from cgankd.core.errors import UserError
from cgankd.core.paths import expanded


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("the same seed is given twice; allowed: distinct whole numbers")
    return seeds


def _expanded(path: str) -> str:
    try:
        return str(expanded(path)) if path.startswith("~") else path  # another path stays as it was typed
    except UserError as error:
        raise ValueError(str(error)) from None


Seeds = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_distinct)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
PathText = Annotated[str, AfterValidator(_expanded)]  # a path, in which ~ is the home folder, or another name


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def by_kind(default: str) -> BeforeValidator:
    """Lets a setting with several kinds be written short: ``none`` for ``{kind: none}``.

    default: the kind where only its numbers are given, as in ``{q: 0.95}``.
    """

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, Mapping) and "kind" not in value:
            return {"kind": default, **value}
        return value

    return BeforeValidator(expand)


def _on_or_off(value: Any) -> Any:
    return {} if value is True else None if value is False or value == "none" else value


# For settings that are absent (none) or there with all their numbers: true and false, or none, may be written for it.
OnOrOff = BeforeValidator(_on_or_off)
