"""Distillation methods: one file each, behind the contract in method.py."""

import importlib
import pkgutil

from cgankd.distill.maker import Maker
from cgankd.distill.method import METHODS, DistillBatch, Method, Preparation, as_published, find, register, serving
from cgankd.distill.objective import (
    SUPERVISED,
    Objective,
    create,
    involved,
    names,
    parts,
    student_network,
    versions,
)

__all__ = [
    "METHODS", "SUPERVISED", "DistillBatch", "Maker", "Method", "Objective", "Preparation", "as_published",
    "create", "find", "involved", "names", "parts", "register", "serving", "student_network", "versions",
]  # fmt: skip

for _file in pkgutil.iter_modules(__path__):  # importing a method's file registers it
    importlib.import_module(f"{__name__}.{_file.name}")
