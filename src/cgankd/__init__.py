"""cgankd: knowledge distillation through conditionally generated images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cgankd.api import Distiller, LabelUnit
    from cgankd.data.imageset import ImageSet
    from cgankd.errors import TrainingError, UserError
    from cgankd.task import Classification, Regression

_HOMES = {
    "Classification": "cgankd.task",
    "Distiller": "cgankd.api",
    "ImageSet": "cgankd.data.imageset",
    "LabelUnit": "cgankd.api",
    "Regression": "cgankd.task",
    "TrainingError": "cgankd.errors",
    "UserError": "cgankd.errors",
}

__all__ = [
    "Classification", "Distiller", "ImageSet", "LabelUnit", "Regression", "TrainingError", "UserError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: `cgankd --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cgankd' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
