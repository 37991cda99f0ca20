"""The settings of a run as pages show them: without those of generated images where the run has none."""

from __future__ import annotations

from typing import Any

import yaml

from cgankd.report import table
from cgankd.report.run import Run

OF_GENERATED = ("generator", "ratio", "synthesis", "search", "metrics.generator")  # only generated images need these


def settings(run: Run) -> dict[str, Any]:
    """The settings by name; {} where the run's folder has no recipe.yaml, or one that can't be read."""
    try:
        tree = yaml.safe_load(run.recipe)
    except yaml.YAMLError:
        return {}
    known = tree if isinstance(tree, dict) else {}
    # The autopilot may have tried generated images in vain, and ready images are opened though no row has any.
    ready = (known.get("generator") or {}).get("source")
    return known if table.generates(run.results) or run.results.get("autopilot") or ready else _without(known)


def as_text(run: Run) -> tuple[str, bool]:
    """The same as YAML, or the file's own text where it holds nothing else; and whether it holds more."""
    shown = settings(run)
    if not shown or shown == yaml.safe_load(run.recipe):
        return run.recipe, False
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), True


def _without(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    kept = {name: value for name, value in tree.items() if f"{path}{name}" not in OF_GENERATED}
    return {
        name: _without(value, f"{path}{name}.") if isinstance(value, dict) else value for name, value in kept.items()
    }
