"""Distillation methods: one file each, behind the contract in method.py."""

from cgankd.distill import kd, supervised  # noqa: F401  (importing a method's file registers it)
from cgankd.distill.method import DistillBatch, Method, create, names

__all__ = ["DistillBatch", "Method", "create", "names"]
