"""Packages that come with an extra, such as pyarrow with ``cgankd[hub]``: opened where they are used, and kept from
reporting this to their makers."""

from __future__ import annotations

import importlib
import os
from typing import Any

from cgankd.core.errors import UserError, said

REPORT_NOTHING = {  # what each package reads when it is first imported or used
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, from 1.29 on: every model that is opened
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # datasets
}


class MissingPackage(UserError):
    """A package of an extra is not installed, or can't be imported."""


def missing(what: str, package: str, extra: str, error: BaseException | None = None) -> MissingPackage:
    """The error on a package that ``what`` needs.

    >>> str(missing("--track wandb", "wandb", "track"))
    "--track wandb needs wandb: pip install 'cgankd[track]'"
    """
    why = f", which can't be imported ({said(error)})" if error else ""
    return MissingPackage(f"{what} needs {package}{why}: pip install 'cgankd[{extra}]'")


def report_nothing() -> None:
    """Keep packages from reporting their use to their makers; to be called before one is imported. What the user has
    set stays."""
    for name, value in REPORT_NOTHING.items():
        os.environ.setdefault(name, value)


def opened(module: str, what: str, extra: str) -> Any:
    """The module; MissingPackage where it can't be imported.

    A version that does not fit the installed torch raises other errors than ImportError.
    """
    report_nothing()
    try:
        return importlib.import_module(module)
    except Exception as error:
        package = module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name in (package, module)
        raise missing(what, package, extra, None if absent else error) from error
