"""What a user brings and a recipe names: a function as ``module:function``, or an ONNX file.

A network, a generator or a teacher.
"""

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
    except (Exception, SystemExit) as error:  # whatever a user's module raises while it is imported
        raise UserError(
            f"{what} {name!r}: module {module_name!r} can't be imported ({said(error)}); "
            "it must be installed, lie in the current folder, or its folder be on PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"{what} {name!r}: module {module_name!r} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def code_key(name: str) -> str:
    """The key of ``module:function``: of its name, its code, and the files that it names.

    The code is the file of the module, or all files of the package that it lies in. What a function reads besides, as
    weights, it names in an attribute: ``function.files = ["weights.pt"]``, paths from the folder of its module on.
    Raises UserError where one of these is not there.
    """
    code = _code(name.partition(":")[0].split("."))
    return content_key(name, [file_key(path) for path in [*code, *_named_files(name)]])


def _named_files(name: str) -> list[Path]:
    try:
        function = load_function(name, "the function")
    except UserError:  # whoever uses the function says so, and better
        return []
    module = sys.modules[name.partition(":")[0]]
    folder = Path(getattr(module, "__file__", None) or ".").parent
    files = [folder / Path(file).expanduser() for file in getattr(function, "files", ())]
    for file in files:
        if not file.is_file():
            raise UserError(f"{name}: its attribute files names {file}, which is not there; allowed: files that are")
    return files


def _code(module: list[str]) -> list[Path]:
    """The files of a module, found without running any; of none that is known []."""
    try:
        spec = importlib.util.find_spec(module[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return []
    if spec.origin is not None and not spec.submodule_search_locations:
        return [path for path in [Path(spec.origin)] if path.is_file()]
    for folder in map(Path, spec.submodule_search_locations or []):
        for part in module[1:]:  # down folders that are no packages, as a project's own may be
            if (folder / "__init__.py").is_file():
                break
            if (file := folder / f"{part}.py").is_file():
                return [file]
            folder /= part
        if (folder / "__init__.py").is_file():
            return sorted(folder.rglob("*.py"))
    return []


def onnx_key(path: Path) -> str:
    """The key of an ONNX file that opens, and of the files with its weights, where it names some that are there."""
    import onnx  # beside onnxruntime in the same extra

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    entries = (entry for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    beside = sorted(other for name in {entry.value for entry in entries} if (other := path.parent / name).is_file())
    return content_key(file_key(path), *map(file_key, beside)) if beside else file_key(path)


def open_onnx(path: Path, what: str) -> Any:
    """An onnxruntime session on the processor, for setting ``what``; UserError where the file is no ONNX file."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{what} {path} needs onnxruntime, which pip install 'cgankd[export]' brings") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors come as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each way a file can be wrong
        raise UserError(f"{what} {path}: not readable as ONNX ({said(error)})") from None


@contextlib.contextmanager
def tried(failed: str, needed: str) -> Iterator[None]:
    """Try the user's code: what it raises becomes a UserError that says what failed, how, and what is needed."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{failed} ({said(error)}); {needed}") from error


def said(error: BaseException) -> str:
    """What an error of the user's code said, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
