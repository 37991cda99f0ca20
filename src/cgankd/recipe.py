"""A run's settings (settings.py) as one tree: read from YAML, overridden by key=value, checked.

Unknown keys are refused. A recipe may extend another (``extends: fashion``) and then holds only what differs.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from cgankd.errors import UserError, did_you_mean
from cgankd.settings import (
    CompareSettings,
    DataSettings,
    GeneratorSettings,
    MetricsSettings,
    RatioSettings,
    RuntimeSettings,
    SearchSettings,
    Settings,
    StudentSettings,
    SynthesisSettings,
    TeacherSettings,
)


class Recipe(Settings):
    """One run."""

    name: str = "custom"
    description: str = ""
    demonstration: bool = Field(False, description="too short to prove anything; the table and the report say so")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    vary: Literal["student", "everything"] = Field(
        "student", description="what a seed changes: the student only, or teacher and generator too"
    )
    data: DataSettings = DataSettings()
    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()
    generator: GeneratorSettings = GeneratorSettings()
    ratio: RatioSettings = RatioSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    search: SearchSettings = SearchSettings()
    metrics: MetricsSettings = MetricsSettings()
    compare: CompareSettings = CompareSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("the same seed stands twice; allowed: distinct whole numbers")
        return seeds

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the table, in order."""
        ablation = ("cgan_raw", "cgan_subsample", "cgan_filter", "cgan_replace") if self.compare.ablation else ()
        methods = self.compare.methods
        at = methods.index("cgan") if "cgan" in methods else len(methods)
        return (*methods[:at], *ablation, *methods[at:])

    def to_yaml(self) -> str:
        """The resolved recipe as YAML; reading it back gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def ready() -> dict[str, Path]:
    """Name -> file of every recipe that comes with the package."""
    folder = Path(str(resources.files("cgankd"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """A ready recipe by name, or a YAML file, with ``key=value`` overrides applied.

    Raises UserError with one sentence for a missing file, bad YAML, an unknown key or a value that is not allowed.
    """
    return from_tree(_read(name_or_path, seen=()), overrides, where=name_or_path)


def from_tree(tree: dict[str, Any], overrides: Iterable[str] = (), *, where: str = "recipe") -> Recipe:
    """A recipe from a nested mapping with ``key=value`` overrides; errors name ``where``."""
    for override in overrides:
        _assign(tree, override)
    return _validate(tree, where)


def _read(name_or_path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name_or_path in seen:
        raise UserError(f"recipe {name_or_path!r} extends itself by way of {' -> '.join(seen)}")
    path = ready().get(name_or_path)
    if path is None:
        path = Path(name_or_path)
        if path.suffix not in {".yaml", ".yml"} or not path.is_file():
            raise UserError(
                f"recipe {name_or_path!r} is neither a ready recipe nor a YAML file that is there; "
                f"ready recipes: {', '.join(ready())}"
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
    merged = _read(str(beside) if beside.is_file() else str(base), (*seen, name_or_path))
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


def _validate(tree: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        # Of a setting that may be one of several kinds, what is said of the kind that came furthest.
        first = max((e for e in found if e["loc"][:2] == found[0]["loc"][:2]), key=lambda e: len(e["loc"]))
        path = [str(part) for part in first["loc"] if not isinstance(part, str) or part.isidentifier()]
        key = ".".join(path)
        if first["type"] == "extra_forbidden":
            allowed = list(_settings_at(path[:-1]).model_fields)
            hint = did_you_mean(path[-1], allowed)
            raise UserError(
                f"{where}: key {key!r} is not known{hint}; allowed here: {', '.join(allowed)}"
            ) from None
        reason, value = first["msg"].removeprefix("Value error, "), first["input"]
        words = re.findall("'([^']+)'", first["ctx"]["expected"]) if first["type"] == "literal_error" else []
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        raise UserError(f"{where}: {key} = {value!r} is not allowed{hint}: {reason}") from None


def _settings_at(path: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Recipe
    for part in path:
        if not part.isdigit():  # a number is a place in a list of settings
            model = _settings_in(model.model_fields[part].annotation)
    return model


def _settings_in(annotation: Any) -> type[BaseModel]:
    """The settings that a field holds, by itself or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for inner in typing.get_args(annotation) for found in [_settings_in(inner)])
