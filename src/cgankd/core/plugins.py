"""A user's own network, generator or teacher: a function named as ``module:function`` in a recipe, or an ONNX file."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key, file_key


def is_function_name(name: str) -> bool:
    """Whether ``name`` has the form module:function (a path with a drive letter has not).

    >>> is_function_name("my.nets:small"), is_function_name("C:/images")
    (True, False)
    """
    return re.fullmatch(r"\w+(\.\w+)*:\w+", name) is not None


def load_function(name: str, what: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; UserError, beginning with ``what``, where there is none."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a user's module raises while it is imported
        raise UserError(
            f"{what} {name!r}: module {module_name!r} can't be imported ({said(error)}); "
            "it must be installed, in the current folder, or in a folder on PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"{what} {name!r}: module {module_name!r} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def code_key(name: str) -> str:
    """The key of ``module:function``: a hash of its name, its code, and the files that it names.

    The code is the file of the module, or all files of its package. A function that reads other files, such as
    weights, names them in an attribute: ``function.files = ["weights.pt"]``, paths relative to its module's folder.
    Raises UserError where such a file does not exist.
    """
    code = _code(name.partition(":")[0].split("."))
    return content_key(name, [file_key(path) for path in [*code, *_named_files(name)]])


def _named_files(name: str) -> list[Path]:
    try:
        function = load_function(name, "the function")
    except UserError:  # the code that uses the function raises a better error
        return []
    module = sys.modules[name.partition(":")[0]]
    folder = Path(getattr(module, "__file__", None) or ".").parent
    files = [folder / Path(file).expanduser() for file in getattr(function, "files", ())]
    for file in files:
        if not file.is_file():
            raise UserError(f"{name}: its attribute files names {file}, which does not exist; allowed: existing files")
    return files


def _code(module: list[str]) -> list[Path]:
    """The files of a module, found without importing it; [] where there is no such module."""
    try:
        spec = importlib.util.find_spec(module[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return []
    if spec.origin is not None and not spec.submodule_search_locations:
        return [path for path in [Path(spec.origin)] if path.is_file()]
    for folder in map(Path, spec.submodule_search_locations or []):
        for part in module[1:]:  # a user's folders often have no __init__.py
            if (folder / "__init__.py").is_file():
                break
            if (file := folder / f"{part}.py").is_file():
                return [file]
            folder /= part
        if (folder / "__init__.py").is_file():
            return sorted(folder.rglob("*.py"))
    return []


def onnx_key(path: Path) -> str:
    """The key of a readable ONNX file and of the files beside it that hold its weights, if there are any."""
    import onnx  # in the same extra as onnxruntime

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    entries = (entry for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    beside = sorted(other for name in {entry.value for entry in entries} if (other := path.parent / name).is_file())
    return content_key(file_key(path), *map(file_key, beside)) if beside else file_key(path)


def open_onnx(path: Path, what: str) -> Any:
    """An onnxruntime session on the CPU, for the setting ``what``; UserError where the file is not an ONNX file."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{what} {path} needs onnxruntime, which pip install 'cgankd[export]' installs") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors come as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each way a file can be wrong
        raise UserError(f"{what} {path}: not readable as ONNX ({said(error)})") from None


@contextlib.contextmanager
def tried(failed: str, needed: str) -> Iterator[None]:
    """Run the user's code: an exception becomes a UserError that says what failed, why, and what is needed."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{failed} ({said(error)}); {needed}") from error


def said(error: BaseException) -> str:
    """The type and message of an exception, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
