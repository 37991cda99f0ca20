"""Texts about the methods for the command line, read from their classes: one line each, or all about one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

from cgankd.core.errors import UserError
from cgankd.distill.base import METHODS, Method, find
from cgankd.distill.objective import parts

SHORT = {"classification": "classes", "regression": "scalars"}


def lines() -> list[list[str]]:
    """For each method: name, what it matches, tasks, what it needs of the teacher, and paper."""
    methods = sorted(METHODS.items())
    return [[name, method.matches, _tasks(method), method.needs(), method.paper] for name, method in methods]


def details(name: str) -> tuple[dict[str, str], str]:
    """Facts about one method, by heading, and its docstring. Raises UserError for an unknown name or a stack."""
    if "+" in name:
        raise UserError(f"{name!r} stacks several methods; allowed: one of {', '.join(parts(name))}")
    method = find(name)
    module = inspect.getmodule(method)
    about = inspect.getdoc(module) or ""
    settings = _numbers(method.defaults)
    settings += "".join(f"; {SHORT[task]}: {_numbers(own)}" for task, own in method.task_defaults.items())
    facts = {
        "method": f"{name}: {about.splitlines()[0]}",
        "matches": f"{method.matches}, at {method.where}",
        "distance": method.distance,
        "tasks": ", ".join(method.tasks),
        "needs": method.needs(),
        "settings": f"student.method_settings.{name}: {settings}" if settings else "none of its own",
        "paper": method.paper,
    }
    paragraphs = (inspect.getdoc(method) or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return facts, re.sub(r":\w+:`([^`]*)`", r"\1", text)


def _numbers(defaults: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {number:g}" for key, number in defaults.items())


def _tasks(method: type[Method]) -> str:
    return "both" if len(method.tasks) == len(SHORT) else ", ".join(SHORT[task] for task in method.tasks)
