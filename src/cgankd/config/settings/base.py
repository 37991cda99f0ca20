"""What all settings share: strict types, no unknown keys, and alternatives that are chosen by ``kind``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cgankd.core.addresses import secret_in
from cgankd.core.errors import UserError
from cgankd.core.paths import expanded


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("the same seed is given twice; allowed: distinct whole numbers")
    return seeds


def _expanded(path: str) -> str:
    try:
        return str(expanded(path)) if path.startswith("~") else path  # other paths stay as they were typed
    except UserError as error:
        raise ValueError(str(error)) from None


def _without_secret(source: str) -> str:
    if (reason := secret_in(source)) is not None:
        raise ValueError(
            f"{reason}, and a recipe is written to files; allowed: the address alone, because the package that reads "
            "it finds credentials in its own files and environment variables"
        )
    return source


Seeds = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_distinct)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Milestone = Annotated[float, Field(gt=0, lt=1)]  # a share of the steps, not a number of them
PathText = Annotated[str, AfterValidator(_expanded)]  # a path, where ~ is the home folder, or a name
SourceText = Annotated[PathText, AfterValidator(_without_secret)]  # also an address


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults_of_groups(cls, data: Any) -> Any:
        """Where some settings of a group are given, the others keep the defaults that this group has here, which may
        differ from those of its class."""
        if not isinstance(data, Mapping):
            return data
        groups = {name: field.default for name, field in cls.model_fields.items() if name in data}
        return {
            **data,
            **{
                name: {**group.model_dump(exclude_unset=True), **data[name]}
                for name, group in groups.items()
                if isinstance(group, Settings) and isinstance(data[name], Mapping)
            },
        }


def by_kind(default: str) -> BeforeValidator:
    """Allow a short form for a setting with several kinds: ``none`` for ``{kind: none}``.

    default: the kind where none is given, as in ``{q: 0.95}``.
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


@dataclasses.dataclass(frozen=True)
class Also:
    """Another form of a setting, in words, which its validator takes."""

    words: str


# For an optional group of settings: true means its defaults, false or none means no such group.
OnOrOff = BeforeValidator(_on_or_off)
