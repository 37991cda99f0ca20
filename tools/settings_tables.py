"""All settings of a recipe as Markdown tables: key, default, what is allowed, description."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cgankd.config.allowed import in_a_table
from cgankd.config.yaml_values import is_model

Row = tuple[str, str, str, str]  # key, default, allowed, description
HEADER = "| setting | default | allowed | what it is |\n| --- | --- | --- | --- |\n"


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
    yield key, _value(field.default), in_a_table(field.annotation, field.metadata), description


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
