"""Distillation methods: one file each; base.py is their interface."""

from cgankd.distill.base import METHODS, DistillBatch, Method, Preparation, as_published, find, register, serving
from cgankd.distill.networks import NetworkFactory
from cgankd.distill.objective import (
    SUPERVISED,
    MethodStack,
    Objective,
    create,
    parts,
    student_network,
)

__all__ = [
    "METHODS", "SUPERVISED", "DistillBatch", "Method", "MethodStack", "NetworkFactory", "Objective", "Preparation",
    "as_published", "create", "find", "methods", "parts", "register", "serving", "student_network",
]  # fmt: skip

import cgankd.distill.methods as methods
