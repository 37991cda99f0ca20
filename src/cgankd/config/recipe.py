"""All settings of a run as one tree, and the recipes that come with the package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cgankd.config import yaml_config
from cgankd.config.settings import (
    CompareSettings,
    DataSettings,
    GeneratorSettings,
    MetricsSettings,
    RatioSettings,
    RunRuntimeSettings,
    SearchSettings,
    Seeds,
    Settings,
    StudentSettings,
    SynthesisSettings,
    TeacherSettings,
)
from cgankd.config.settings.base import OnOrOff
from cgankd.config.settings.compare import UNLABELLED_CANDIDATES


class Recipe(Settings):
    """All settings of one run."""

    name: str = Field("custom", description="name of the run: heading of the report and default folder under runs/")
    description: str = Field("", description="one sentence, which `cgankd recipes` prints")
    demonstration: bool = Field(False, description="too short to be evidence; the table and the report say so")
    seeds: Seeds = Field((0, 1, 2), description="one run of every row for each seed; the spread is over them")
    vary: Literal["student", "everything"] = Field(
        "student", description="what a seed changes: only the student, or also teacher and generator"
    )
    data: DataSettings = DataSettings()
    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()
    generator: GeneratorSettings = GeneratorSettings()
    ratio: RatioSettings = RatioSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    search: Annotated[SearchSettings | None, OnOrOff] = Field(
        None,
        description="choose rho, M and the label law on the validation split; none: use those of synthesis",
    )
    metrics: MetricsSettings = MetricsSettings()
    compare: CompareSettings = CompareSettings()
    runtime: RunRuntimeSettings = RunRuntimeSettings()

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the table, in order; with ``compare.methods: auto`` the candidates."""
        ablation = ("cgan_raw", "cgan_subsample", "cgan_filter", "cgan_replace") if self.compare.ablation else ()
        methods = self.compare.named
        if self.compare.methods == "auto" and self.data.unlabelled is not None:
            methods += UNLABELLED_CANDIDATES
        at = methods.index("cgan") if "cgan" in methods else len(methods)
        return (*methods[:at], *ablation, *methods[at:])

    def to_yaml(self) -> str:
        """The resolved recipe as YAML; reading it back gives an equal recipe."""
        return yaml_config.to_yaml(self)


def ready() -> dict[str, Path]:
    """Name -> file of every ready recipe: those that come with the package."""
    return yaml_config.ready("cgankd.config")


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """A ready recipe by name, or a YAML file, with ``key=value`` overrides applied.

    Raises UserError with one sentence for a missing file, bad YAML, an unknown key or a value that is not allowed.
    """
    return yaml_config.load(Recipe, ready(), name_or_path, overrides)


def from_tree(tree: dict[str, Any], overrides: Iterable[str] = (), *, where: str = "recipe") -> Recipe:
    """A recipe from a nested mapping with ``key=value`` overrides; errors name ``where``."""
    return yaml_config.from_tree(Recipe, tree, overrides, where=where)
