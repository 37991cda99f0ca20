"""cgankd: knowledge distillation through conditionally generated images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgankd._version import __version__

if TYPE_CHECKING:
    from cgankd.api import Distiller, LabelUnit
    from cgankd.core.errors import TrainingError, UserError
    from cgankd.data.imageset import ImageSet
    from cgankd.runs import load_data, open_fakes, open_results, run_recipe, show_progress
    from cgankd.sklearn import DistilledClassifier, DistilledRegressor
    from cgankd.tasks import CircularRegression, Classification, Regression

_HOMES = {
    "CircularRegression": "cgankd.tasks",
    "Classification": "cgankd.tasks",
    "DistilledClassifier": "cgankd.sklearn",
    "DistilledRegressor": "cgankd.sklearn",
    "Distiller": "cgankd.api",
    "ImageSet": "cgankd.data.imageset",
    "LabelUnit": "cgankd.api",
    "Regression": "cgankd.tasks",
    "TrainingError": "cgankd.core.errors",
    "UserError": "cgankd.core.errors",
    "load_data": "cgankd.runs",
    "open_fakes": "cgankd.runs",
    "open_results": "cgankd.runs",
    "run_recipe": "cgankd.runs",
    "show_progress": "cgankd.runs",
}

__all__ = [
    "CircularRegression", "Classification", "DistilledClassifier", "DistilledRegressor", "Distiller", "ImageSet",
    "LabelUnit", "Regression", "TrainingError", "UserError", "__version__", "load_data", "open_fakes",
    "open_results", "run_recipe", "show_progress",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import public names when first used, so that `cgankd --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cgankd' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
