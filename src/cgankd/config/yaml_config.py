"""A tree of settings (settings.py) from a file: read from YAML, overridden by key=value, checked.

Unknown keys are refused. A file may extend another (``extends: fashion``) and then holds only what differs.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cgankd.config.settings import Settings
from cgankd.core.errors import UserError, did_you_mean

Tree = TypeVar("Tree", bound=Settings)


def ready(package: str) -> dict[str, Path]:
    """Name -> file of every recipe in the folder ``recipes`` of a package, such as cgankd itself."""
    folder = Path(str(resources.files(package))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(model: type[Tree], known: Mapping[str, Path], name_or_path: str, overrides: Iterable[str] = ()) -> Tree:
    """One of the ``known`` recipes by name, or a YAML file, with ``key=value`` overrides applied.

    Raises UserError with one sentence for a missing file, bad YAML, an unknown key or a value that is not allowed.
    """
    return from_tree(model, _read(name_or_path, known, seen=()), overrides, where=name_or_path)


def from_tree(model: type[Tree], tree: dict[str, Any], overrides: Iterable[str] = (), *, where: str) -> Tree:
    """Settings from a nested mapping with ``key=value`` overrides; errors name ``where``."""
    tree = copy.deepcopy(tree)  # the caller's stays as it is
    for override in overrides:
        _assign(tree, override)
    return _validate(model, tree, where)


def to_yaml(settings: Settings) -> str:
    """All settings as YAML; reading it back gives equal ones."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(name_or_path: str, known: Mapping[str, Path], seen: tuple[str, ...]) -> dict[str, Any]:
    if name_or_path in seen:
        raise UserError(f"recipe {name_or_path!r} extends itself by way of {' -> '.join(seen)}")
    path = known.get(name_or_path)
    if path is None:
        path = Path(name_or_path)
        if path.suffix not in {".yaml", ".yml"} or not path.is_file():
            raise UserError(
                f"recipe {name_or_path!r} is neither a ready recipe nor a YAML file that is there; "
                f"ready recipes: {', '.join(known)}"
            )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds a {type(tree).__name__}, where a mapping of settings is needed")
    base = tree.pop("extends", None)
    if base is None:
        tree.setdefault("name", path.stem)
        return tree
    beside = path.parent / str(base)  # a file it extends is looked for beside it
    merged = _read(str(beside) if beside.is_file() else str(base), known, (*seen, name_or_path))
    _merge(merged, {"name": path.stem, **tree})
    return merged


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _assign(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r} is not of the form key=value, as in student.fit.steps=500")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"override {override!r}: {text!r} is not readable as a YAML value") from None
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"override {override!r}: {parent!r} is a single value and has no keys below it")
        node = child
    node[leaf] = value


def _validate(model: type[Tree], tree: dict[str, Any], where: str) -> Tree:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        # Of a setting that may be one of several kinds, what is said of the kind that came furthest.
        first = max((e for e in found if e["loc"][:2] == found[0]["loc"][:2]), key=lambda e: len(e["loc"]))
        path = [str(part) for part in first["loc"] if not isinstance(part, str) or part.isidentifier()]
        key = ".".join(path)
        if first["type"] == "extra_forbidden":
            allowed = list(_settings_at(model, path[:-1]).model_fields)
            hint = did_you_mean(path[-1], allowed)
            raise UserError(
                f"{where}: key {key!r} is not known{hint}; allowed here: {', '.join(allowed)}"
            ) from None
        reason, value = first["msg"].removeprefix("Value error, "), first["input"]
        words = re.findall("'([^']+)'", first["ctx"]["expected"]) if first["type"] == "literal_error" else []
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        raise UserError(f"{where}: {key} = {value!r} is not allowed{hint}: {reason}") from None


def _settings_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for part in path:
        if not part.isdigit():  # a number is a place in a list of settings
            model = _settings_in(model.model_fields[part].annotation)
    return model


def _settings_in(annotation: Any) -> type[BaseModel]:
    """The settings that a field holds, by itself or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for inner in typing.get_args(annotation) for found in [_settings_in(inner)])
