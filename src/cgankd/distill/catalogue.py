"""What a person is told of the methods: a line of each, or all of one; read from the classes themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

from cgankd.core.errors import UserError
from cgankd.distill.base import METHODS, Method, find
from cgankd.distill.objective import parts

SHORT = {"classification": "classes", "regression": "scalars"}


def lines() -> list[list[str]]:
    """Each method's name, what it matches, its tasks, what it needs of the teacher, and its paper."""
    return [[name, made.matches, _tasks(made), made.needs(), made.paper] for name, made in sorted(METHODS.items())]


def details(name: str) -> tuple[dict[str, str], str]:
    """What is to be said of one method, by heading, and its docstring; UserError where none is called so."""
    if "+" in name:
        raise UserError(f"{name!r} stacks several methods; allowed: one at a time, of {', '.join(parts(name))}")
    made = find(name)
    module = inspect.getmodule(made)
    about = inspect.getdoc(module) or ""
    settings = _numbers(made.defaults)
    settings += "".join(f"; {SHORT[task]}: {_numbers(own)}" for task, own in made.task_defaults.items())
    facts = {
        "method": f"{name}: {about.splitlines()[0]}",
        "matches": f"{made.matches}, at {made.where}",
        "distance": made.distance,
        "tasks": ", ".join(made.tasks),
        "needs": made.needs(),
        "settings": f"student.method_settings.{name}: {settings}" if settings else "none of its own",
        "paper": made.paper,
    }
    paragraphs = (inspect.getdoc(made) or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return facts, re.sub(r":\w+:`([^`]*)`", r"\1", text)


def _numbers(defaults: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {number:g}" for key, number in defaults.items())


def _tasks(made: type[Method]) -> str:
    return "both" if len(made.tasks) == len(SHORT) else ", ".join(SHORT[task] for task in made.tasks)
