"""Settings from a YAML file with key=value overrides, checked.

Unknown keys are errors. A file may extend another (``extends: fashion``); it then holds only what differs.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cgankd.config import refusal, yaml_values
from cgankd.config.settings import Settings
from cgankd.core.addresses import masked
from cgankd.core.errors import UserError
from cgankd.core.paths import RECIPE, expanded, is_file, is_folder

Tree = TypeVar("Tree", bound=Settings)


def ready(package: str) -> dict[str, Path]:
    """Name -> file of every recipe in the folder ``recipes`` of a package."""
    folder = Path(str(resources.files(package))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(model: type[Tree], known: Mapping[str, Path], name_or_path: str, overrides: Iterable[str] = ()) -> Tree:
    """One of the ``known`` recipes by name, or a YAML file, with ``key=value`` overrides applied.

    Raises UserError with one sentence for a missing file, bad YAML, an unknown key or a value that is not allowed.
    """
    return from_tree(model, _read(name_or_path, known, chain=()), overrides, where=name_or_path)


def from_tree(model: type[Tree], tree: dict[str, Any], overrides: Iterable[str] = (), *, where: str) -> Tree:
    """Settings from a nested mapping with ``key=value`` overrides; errors name ``where``."""
    return _validate(model, changed(model, tree, overrides), where)


def changed(model: type[Tree], tree: dict[str, Any], overrides: Iterable[str]) -> Any:
    """The nested mapping with ``key=value`` overrides, not yet checked."""
    tree = copy.deepcopy(tree)  # the caller's tree must not change
    for override in overrides:
        _assign(model, tree, override)
    return yaml_values.resolve(tree, model)


def to_yaml(settings: Settings) -> str:
    """All settings as YAML; reading it back gives equal ones."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _no_path(text: str, path: Path) -> str:
    """What is wrong with a word that looks like a path to images."""
    if is_file(path):
        return f", and this file holds no images ({path.suffix or 'no suffix'})"
    if is_file(path / RECIPE):  # the folder of a run
        return f"; the settings of the run in this folder are {path / RECIPE}"
    if is_folder(path):
        return ", but a folder"
    return f", and there is no folder {path}" if "/" in text or "\\" in text else ""


def _read(name_or_path: str, known: Mapping[str, Path], chain: tuple[str, ...]) -> dict[str, Any]:
    """The recipe's tree, merged into those that it extends; ``chain``: the recipes that extend it."""
    if name_or_path in chain:
        raise UserError(f"recipe {name_or_path!r} extends itself through {' -> '.join(chain)}")
    path = known.get(name_or_path)
    if path is None:
        path = expanded(name_or_path)
        if path.suffix not in {".yaml", ".yml"} or not is_file(path):
            raise UserError(
                f"recipe {name_or_path!r} is neither a ready recipe nor an existing YAML file"
                f"{_no_path(name_or_path, path)}; ready recipes: {', '.join(known)}"
            )
    try:
        tree = yaml_values.load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        value = tree.value if isinstance(tree, yaml_values.Typed) else tree
        raise UserError(f"{path}: holds a {type(value).__name__}; needed: a mapping of settings")
    base = tree.pop("extends", None)
    if isinstance(base, yaml_values.Typed):
        base = None if base.value is None else base.text
    if base is None:
        tree.setdefault("name", path.stem)
        return tree
    beside = path.parent / str(base)  # the file that it extends may be in the same folder
    merged = _read(str(beside) if is_file(beside) else str(base), known, (*chain, name_or_path))
    _merge(merged, {"name": path.stem, **tree})
    return merged


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        current = base.get(key)
        if isinstance(current, str) and isinstance(value, Mapping) and "kind" not in value:
            current = base[key] = {"kind": current}
        if isinstance(value, Mapping) and isinstance(current, dict) and not _other_kind(current, value):
            _merge(current, value)
        else:
            base[key] = value


def _other_kind(base: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    """Whether the changes choose another kind, for which the settings of the old kind don't count."""
    return "kind" in changes and changes["kind"] != base.get("kind", changes["kind"])


def _assign(model: type[BaseModel], tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r} is not of the form key=value, as in student.fit.steps=500")
    *parents, leaf = key.split(".")
    node, owners = tree, [model]
    for parent in parents:
        fields = next((owner.model_fields for owner in owners if parent in owner.model_fields), {})
        owners = list(_models(fields[parent].annotation)) if parent in fields else []
        child = node.get(parent)
        child = child.value if isinstance(child, yaml_values.Typed) else child
        if isinstance(child, str) and any(yaml_values.kind_of(owner) for owner in owners):
            child = {"kind": child}  # the short form
        elif child in (None, "none") or child is True:
            child = {}
        if not isinstance(child, dict):
            raise UserError(f"override {override!r}: {parent!r} is a single value and has no keys below it")
        node[parent] = child
        node = child
    annotations = [owner.model_fields[leaf].annotation for owner in owners if leaf in owner.model_fields]
    try:
        node[leaf] = yaml_values.as_typed(text, *annotations)
    except yaml.YAMLError:
        raise UserError(f"override {override!r}: {text!r} is not readable as a YAML value") from None


def _validate(model: type[Tree], tree: dict[str, Any], where: str) -> Tree:
    try:
        settings = model.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{masked(where)}: {refusal.refusal(model, error)}") from None
    if wrong := _bool_as_number(tree, settings):
        path, value = wrong
        at = refusal.place(model, path)
        raise UserError(f"{where}: {refusal.not_allowed(at, value)}")
    return settings


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings classes that a field may hold, alone or in a list."""
    if yaml_values.is_model(annotation):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _bool_as_number(tree: Any, settings: Any) -> tuple[list[int | str], bool] | None:
    """The path to a true or false that became a number, and its value; None where there is none."""
    if isinstance(tree, bool):
        return None if isinstance(settings, bool) or not isinstance(settings, int | float) else ([], tree)
    inside: list[tuple[int | str, Any, Any]] = []
    if isinstance(tree, Mapping) and isinstance(settings, BaseModel):
        inside = [(name, value, getattr(settings, name)) for name, value in tree.items()]
    elif isinstance(tree, list) and isinstance(settings, tuple):
        inside = [(place, *both) for place, both in enumerate(zip(tree, settings, strict=True))]
    elif isinstance(tree, Mapping) and isinstance(settings, Mapping):
        inside = [(name, value, settings[name]) for name, value in tree.items()]
    for name, value, setting in inside:
        if wrong := _bool_as_number(value, setting):
            return [name, *wrong[0]], wrong[1]
    return None
