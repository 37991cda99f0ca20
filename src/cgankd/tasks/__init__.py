"""The tasks classification and regression: everything in which they differ."""

from __future__ import annotations

from typing import Any

from cgankd.core.errors import UserError
from cgankd.tasks.base import Task
from cgankd.tasks.circular import CircularRegression
from cgankd.tasks.classification import Classification
from cgankd.tasks.regression import Regression

__all__ = ["CircularRegression", "Classification", "Regression", "Task", "from_json"]


def from_json(value: dict[str, Any]) -> Task:
    """The inverse of :meth:`Task.to_json`. Raises UserError for an unknown type."""
    fields = {name: item for name, item in value.items() if name != "type"}
    if value.get("type") == Classification.name:
        return Classification(class_names=tuple(fields["class_names"]))
    for scalar in (Regression, CircularRegression):
        if value.get("type") == scalar.kind:
            return scalar(**fields)
    raise UserError(f"task type {value.get('type')!r} is not known; allowed: classification, regression, circular")
