"""Why settings are refused, as one sentence: the key as the user writes it, its value, and what is allowed."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from cgankd.config import allowed
from cgankd.config.yaml_values import alternatives, is_model, kind_of
from cgankd.core.addresses import masked
from cgankd.core.errors import did_you_mean

LONGEST = 60  # characters of a value


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a setting is. owner: the settings that hold its key. annotation, metadata: what it may be."""

    path: tuple[str, ...]
    owner: type[BaseModel]
    annotation: Any
    metadata: Sequence[Any]

    @property
    def key(self) -> str:
        return ".".join(self.path)


def refusal(model: type[BaseModel], error: ValidationError) -> str:
    """The first of the errors as a sentence."""
    errors = error.errors()
    # A setting with several types has an error for each; the deepest one belongs to the type that the user meant.
    first = max((e for e in errors if e["loc"][:2] == errors[0]["loc"][:2]), key=lambda e: len(e["loc"]))
    location, value = first["loc"], first["input"]
    if first["type"] == "missing" and isinstance(location[-1], int):  # a list that is too short
        location = location[:-1]
    at = place(model, location)
    if first["type"] == "extra_forbidden":
        known = list(at.owner.model_fields)
        return f"key {at.key!r} is not known{did_you_mean(at.path[-1], known)}; allowed here: {', '.join(known)}"
    if first["type"] == "missing" and location == first["loc"]:
        return f"{at.key} is missing; needed: {allowed.in_a_sentence(at.annotation, at.metadata)}"
    if first["type"] == "value_error":  # of a validator of ours, whose message says what is allowed
        reason = first["msg"].removeprefix("Value error, ")
        if isinstance(value, Mapping):
            return f"{at.key}: {reason}" if at.path else reason
        return f"{at.key} = {shown(value)} is not allowed: {reason}"
    if first["type"] == "union_tag_invalid":
        value = first["ctx"]["tag"]
    return not_allowed(at, value)


def not_allowed(at: Place, value: Any) -> str:
    """The sentence on a value of another type, or out of bounds."""
    hint = did_you_mean(value, allowed.literals(at.annotation)) if isinstance(value, str) else ""
    words = allowed.in_a_sentence(at.annotation, at.metadata)
    finite = "finite " if isinstance(value, float) and value - value != 0 else ""  # inf and nan
    words = words.replace("a number", f"a {finite}number")
    return f"{at.key} = {shown(value)} is not allowed{hint}; allowed: {words}{'' if hint else _as_a_list(at, value)}"


def _as_a_list(at: Place, value: Any) -> str:
    """How the value is written as a list, where the setting is one that may hold it; else nothing."""
    items = [item.strip() for item in str(value).split(",")]
    if value is None or isinstance(value, bool) or not all(re.fullmatch(r"[\w.+~@-]{1,60}", item) for item in items):
        return ""
    for option in alternatives(at.annotation):
        inner = typing.get_args(option)
        if typing.get_origin(option) is tuple and inner[-1] is Ellipsis:
            with contextlib.suppress(ValidationError):
                TypeAdapter(list[inner[0]]).validate_python(items)  # type: ignore[valid-type]
                return f", such as {at.key}=[{','.join(items)}]"
    return ""


def shown(value: Any) -> str:
    """A value as one writes it in a recipe.

    >>> shown(None), shown([True, 0.5]), shown("a"), shown({"kind": "x"})
    ('none', '[true, 0.5]', "'a'", "{kind: 'x'}")
    """
    return _cut(masked(_written(value)))


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_written(item)}' for name, item in value.items())}}}"
    return repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def place(model: type[BaseModel], location: Sequence[int | str]) -> Place:
    """The place of a pydantic error, whose location also names kinds and the types of unions."""
    at = Place((), model, model, ())
    for part in location:
        at = _inside(at, part)
    return at


def _inside(at: Place, part: int | str) -> Place:
    types = list(alternatives(at.annotation))
    models = [option for option in types if is_model(option)]
    if len(models) > 1 and (chosen := [option for option in models if kind_of(option) == part]):
        return dataclasses.replace(at, annotation=chosen[0], metadata=())
    path = (*at.path, str(part))
    for owner in models:
        if part in owner.model_fields:
            field = owner.model_fields[str(part)]
            return Place(path, owner, field.annotation, field.metadata)
    if models and isinstance(part, str):
        return Place(path, models[0], Any, ())  # an unknown key
    for option in types:
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if origin is tuple and isinstance(part, int):
            return Place(path, at.owner, inner[0], ())
        if origin is dict:
            return Place(path, at.owner, inner[1], ())
    return at  # the name of one of the types of a union
