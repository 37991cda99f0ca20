"""The versions that ``make test-lowest`` installs are the lower bounds that pyproject.toml states."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("export", "hub", "lm", "render", "robust", "slurm")


def versions(requirements: list[str], operator: str) -> dict[str, Version]:
    """The version behind the operator, by name; fails where one is missing."""
    found = {}
    for requirement in map(Requirement, requirements):
        (version,) = [part.version for part in requirement.specifier if part.operator == operator]
        found[requirement.name.lower()] = Version(version)
    return found


def test_the_lowest_versions_that_are_tried_are_the_lower_bounds() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = [requirement for extra in EXTRAS for requirement in project["optional-dependencies"][extra]]
    bounds = versions(project["dependencies"] + optional, ">=")
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = versions([line for line in lines if "==" in line], "==")
    assert pins == bounds
