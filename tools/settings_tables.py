"""All settings of a recipe as Markdown tables: key, default, what is allowed, description."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cgankd.config.yaml_values import is_model

Row = tuple[str, str, str, str]  # key, default, allowed, description
HEADER = "| setting | default | allowed | what it is |\n| --- | --- | --- | --- |\n"
WORDS = {int: "whole number", float: "number", str: "text", bool: "true, false", type(None): "none"}


def settings_page(title: str, model: type[BaseModel], introduction: str) -> str:
    """The page of one kind of recipe: settings that stand alone, then one section for each group."""
    parts = [f"# {title}\n{introduction}", "## At the top\n"]
    alone = [row for name, field in model.model_fields.items() if _group(field) is None for row in _rows(name, field)]
    parts.append(_table(alone))
    for name, field in model.model_fields.items():
        if group := _group(field):
            parts.append(f"## {name}\n\n{_text(group)}\n")
            parts.append(_table(list(_inside(name, group, field.default))))
    return "\n".join(parts)


def _rows(key: str, field: FieldInfo, note: str = "") -> Iterator[Row]:
    """The row of a setting, and the rows of the settings inside it."""
    if group := _group(field):
        yield from _inside(key, group, field.default, note)
        return
    models = list(_models(field.annotation))
    if not field.description:
        raise ValueError(f"{key} has no description; give its Field one")
    description = field.description + (f" ({note})" if note else "")
    kinds = [model for model in models if "kind" in model.model_fields]
    if kinds:
        names = [str(model.model_fields["kind"].default) for model in kinds]
        several = isinstance(field.default, tuple)
        default = _value(field.default) if several else f"`{field.default.kind}`"
        yield (
            key,
            default,
            ("list of " if several else "kind: ") + ", ".join(f"`{name}`" for name in names),
            description,
        )
        if several:
            return
        for name, model in zip(names, kinds, strict=True):
            about = f"kind {name}"
            yield from _inside(key, model, field.default if isinstance(field.default, model) else None, about)
        return
    if models:
        yield from _optional_or_list(key, field, models[0], description)
        return
    yield key, _value(field.default), _allowed(field.annotation, field.metadata), description


def _optional_or_list(key: str, field: FieldInfo, model: type[BaseModel], description: str) -> Iterator[Row]:
    if isinstance(field.default, tuple):
        yield key, _value(field.default), "a list of groups of the settings below", description
        yield from _inside(f"{key}[]", model, None)
        return
    yield key, "on" if field.default else "none", "on or off", description
    yield from _inside(key, model, field.default)


def _inside(key: str, model: type[BaseModel], default: Any, note: str = "") -> Iterator[Row]:
    """The settings of a group; ``default``: the group that holds their defaults there, None: those of its class."""
    for name, field in model.model_fields.items():
        if name != "kind":
            here = field if default is None else FieldInfo.merge_field_infos(field, default=getattr(default, name))
            yield from _rows(f"{key}.{name}", here, note)


def _group(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a setting that is always a group of settings, without kinds; else None."""
    annotation = field.annotation
    return annotation if is_model(annotation) and "kind" not in annotation.model_fields else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if is_model(annotation):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _allowed(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """The type and its bounds in words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        own = [part for entry in inner[1:] for part in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
        return _allowed(inner[0], [*own, *metadata])
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in inner)
    if origin in (types.UnionType, typing.Union):
        return ", ".join(_allowed(part, () if part is type(None) else metadata) for part in inner)
    if origin is tuple:
        if len(inner) == 2 and inner[1] is ...:
            return f"list of: {_allowed(inner[0])}"
        return f"two of: {_allowed(inner[0])}" if len(inner) == 2 else "list"
    if origin is dict:
        return "groups of numbers by name" if typing.get_origin(inner[1]) is dict else "numbers by name"
    return WORDS.get(annotation, str(annotation)) + _bounds(metadata)


def _bounds(metadata: list[Any] | tuple[Any, ...]) -> str:
    signs = {
        annotated_types.Ge: ("at least", "ge"),
        annotated_types.Gt: ("above", "gt"),
        annotated_types.Le: ("at most", "le"),
        annotated_types.Lt: ("below", "lt"),
        annotated_types.MultipleOf: ("a multiple of", "multiple_of"),
    }
    texts = [f"{signs[type(b)][0]} {getattr(b, signs[type(b)][1])}" for b in metadata if type(b) in signs]
    return " " + ", ".join(texts) if texts else ""


def _value(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if isinstance(value, dict):
        return "{}"
    return f'"{value}"' if value == "" else str(value)


def _text(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split()).replace("``", "`")


def _table(rows: list[Row]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = ("| `{}` | {} | {} | {} |\n".format(*(cell.replace("|", "\\|") for cell in row)) for row in rows)
    return HEADER + "".join(lines)
