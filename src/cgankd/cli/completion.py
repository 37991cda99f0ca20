"""What the shell completes: names of recipes, methods and networks.

The names of methods and networks are read from the source files, because importing their modules imports torch, which
takes seconds at every press of the tab key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent
METHOD = re.compile(r'^@register\nclass .*?^    name = "([^"]+)"', re.MULTILINE | re.DOTALL)
NETWORK = re.compile(r'^@register\("([^"]+)"', re.MULTILINE)


def recipe_names(incomplete: str) -> list[str]:
    """Recipes of ``cgankd run`` and of the commands that read the same recipes."""
    return _starting(incomplete, _recipes("run"))


def all_recipe_names(incomplete: str) -> list[str]:
    """Recipes of every command."""
    return _starting(incomplete, _recipes("run", "continual", "lm"))


def continual_recipe_names(incomplete: str) -> list[str]:
    """Recipes of ``cgankd continual``."""
    return _starting(incomplete, _recipes("continual"))


def lm_recipe_names(incomplete: str) -> list[str]:
    """Recipes of ``cgankd lm``."""
    return _starting(incomplete, _recipes("lm"))


def method_names(incomplete: str) -> list[str]:
    """Distillation methods."""
    return _starting(incomplete, methods())


def network_names(incomplete: str) -> list[str]:
    """Networks."""
    return _starting(incomplete, networks())


def method_lists(incomplete: str) -> list[str]:
    """Lists of methods with commas, each perhaps several with +: the last name is completed."""
    before, name = _last(incomplete, "+,")
    return [before + method for method in _starting(name, methods())]


def network_lists(incomplete: str) -> list[str]:
    """Lists of networks with commas: the last name is completed."""
    before, name = _last(incomplete, ",")
    return [before + network for network in _starting(name, networks())]


def methods() -> list[str]:
    """The names of all distillation methods, sorted."""
    return _registered("distill/methods", METHOD)


def networks() -> list[str]:
    """The names of all networks of the zoo, sorted."""
    return _registered("nets/families", NETWORK)


def _registered(folder: str, pattern: re.Pattern[str]) -> list[str]:
    files = sorted((SOURCES / folder).glob("*.py"))
    return sorted(name for file in files for name in pattern.findall(file.read_text(encoding="utf-8")))


def _recipes(*commands: str) -> list[str]:
    from cgankd.cli.recipes import homes

    return sorted(name for command, home in homes().items() if command in commands for name in home.ready())


def _last(text: str, separators: str) -> tuple[str, str]:
    """The text up to the last separator, and what follows it."""
    end = max(text.rfind(separator) for separator in separators) + 1
    return text[:end], text[end:]


def _starting(beginning: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(beginning)]
