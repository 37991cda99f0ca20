"""A user's own network, generator or teacher: a function named as ``module:function`` in a recipe, or an ONNX file."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from cgankd.core import extras
from cgankd.core.errors import UserError, said
from cgankd.core.hashing import content_key, file_key
from cgankd.core.numbers import counted

# onnxruntime's words for any other file
NO_ONNX = ("Protobuf parsing failed", "No graph was found", "does not have a graph")


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

    The code is the file of the module, or all files of its package, and the user's further modules that these import.
    A function that reads other files, such as weights, names them in an attribute: ``function.files = ["weights.pt"]``,
    paths relative to its module's folder. Raises UserError where such a file does not exist.
    """
    code = _code(name.partition(":")[0].split("."))
    return content_key(name, [file_key(path) for path in [*code, *_named_files(name)]], *_imported_keys(code))


def source_key(function: Any) -> str:
    """The key of the source text of a function, or of the class of another callable; that of "" if there is none."""
    try:
        return content_key(inspect.getsource(function if inspect.isroutine(function) else type(function)))
    except (OSError, TypeError):  # made by exec, or in C
        return content_key("")


def _imported_keys(code: list[Path]) -> list[str]:
    """The keys of the user's further modules that ``code`` imports, directly or not. Installed ones are left out."""
    seen, waiting = set(code), [path for path in code if not _is_installed(path)]
    while waiting:
        path = waiting.pop()
        for level, module in _imports(path.read_bytes()):
            new = set(_below(path.parents[level - 1], module) if level else _own_code(module)) - seen
            seen |= new
            waiting += new
    return sorted(map(file_key, seen.difference(code)))


@functools.cache
def _imports(code: bytes) -> frozenset[tuple[int, tuple[str, ...]]]:
    """What a file imports, by number of leading dots and name; ``from a import b`` is a.b, which may be a module."""
    found = set[tuple[int, str]]()
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError):
        nodes = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.level, f"{node.module}.{alias.name}".removeprefix("None.")) for alias in node.names}
    return frozenset((level, tuple(name.split("."))) for level, name in found)


def _own_code(module: tuple[str, ...]) -> list[Path]:
    """As :func:`_code`; [] for modules of Python, of this package, and installed ones."""
    if module[0] in sys.stdlib_module_names or module[0] == "cgankd":
        return []
    spec = _spec(module[0])
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or [])]
    return [] if any(_is_installed(Path(place)) for place in places) else _code(list(module))


def _is_installed(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


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
    spec = _spec(module[0])
    if spec is None:
        return []
    if spec.origin is not None and not spec.submodule_search_locations:
        return [path for path in [Path(spec.origin)] if path.is_file()]
    folders = map(Path, spec.submodule_search_locations or [])
    return next(filter(None, (_below(folder, module[1:]) for folder in folders)), [])


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


def _below(folder: Path, parts: Sequence[str]) -> list[Path]:
    """The files of the module that is named by ``parts``, seen from a folder of modules."""
    for part in parts:  # a user's folders often have no __init__.py
        if (folder / "__init__.py").is_file():
            break
        if (file := folder / f"{part}.py").is_file():
            return [file]
        folder /= part
    return sorted(folder.rglob("*.py")) if (folder / "__init__.py").is_file() else []


def onnx_key(path: Path) -> str:
    """The key of a readable ONNX file and of the files beside it that hold its weights, if there are any."""
    import onnx  # in the same extra as onnxruntime

    model = onnx.load(path, load_external_data=False)
    tensors = _tensors([model.graph, *model.functions])
    entries = (entry for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    beside = sorted(other for name in {entry.value for entry in entries} if (other := path.parent / name).is_file())
    return content_key(file_key(path), *map(file_key, beside)) if beside else file_key(path)


def _tensors(graphs: Iterable[Any]) -> Iterator[Any]:
    """The tensors of ONNX graphs and functions, and of the graphs within them, such as the branches of an If."""
    for graph in graphs:
        yield from getattr(graph, "initializer", ())  # a function has none
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            yield from (attribute.t, *attribute.tensors)
            yield from _tensors([attribute.g, *attribute.graphs])


def open_onnx(path: Path, what: str) -> Any:
    """An onnxruntime session on the CPU, for the setting ``what``; UserError where the file is not an ONNX file."""
    onnxruntime = extras.opened("onnxruntime", f"{what} {path}", "export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors come as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each way a file can be wrong
        if any(words in str(error) for words in NO_ONNX):
            size = counted(path.stat().st_size, "byte", "bytes")
            raise UserError(
                f"{what} {path}: is no ONNX file, or a part of one ({size}); needed: a whole one, as torch.onnx.export "
                "and cgankd export write it"
            ) from None
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
