"""A function of the user's own, named in a recipe as ``module:function``: a network, or a generator."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

from cgankd.errors import UserError


def is_function_name(name: str) -> bool:
    """Whether ``name`` reads as module:function (a path with a drive's letter does not).

    >>> is_function_name("my.nets:small"), is_function_name("C:/images")
    (True, False)
    """
    return re.fullmatch(r"\w+(\.\w+)*:\w+", name) is not None


def load_function(name: str, what: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; UserError, beginning with ``what``, where there is none."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises while it is imported
        raise UserError(
            f"{what} {name!r}: module {module_name!r} can't be imported ({said(error)}); "
            "it must be installed or its folder be on PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"{what} {name!r}: module {module_name!r} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def said(error: Exception) -> str:
    """What an error of the user's code said, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
