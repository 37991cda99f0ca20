"""Reads the tensors of foreign checkpoints, in any entry of the file. No code in a file is run."""

from __future__ import annotations

import dataclasses
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors
from cgankd.core.numbers import counted
from cgankd.core.terminal import on_one_line

# Entries in which training scripts store the weights: plain ones, those of the paper's authors, and averages (EMA).
KNOWN = (
    "state_dict", "model_state_dict", "net_state_dict", "model", "net", "network", "weights", "params",
    "ema", "model_ema", "state_dict_ema", "ema_state_dict", "module",
)  # fmt: skip
SKIPPED = ("optim", "sched", "scaler")  # parts of the names of entries whose tensors belong to no network
MAX_DEPTH = 3  # of nested entries
# Classes of settings and scores stored beside the weights. They are read as placeholders, so none of their code is run.
HARMLESS = re.compile(
    r"(argparse\.Namespace|types\.SimpleNamespace|pathlib\.[\w.]+|datetime\.\w+|numpy\.[\w.]+|collections\.defaultdict|"
    r"builtins\.(list|dict|set|int|float|str)|easydict\.EasyDict|lightning(\.|_fabric\.)[\w.]*AttributeDict|"
    r"pytorch_lightning\.[\w.]*AttributeDict)"
)


@dataclasses.dataclass(frozen=True)
class StateDict:
    """Tensors by name. entry: their place in the file, such as ``model.state_dict``; empty: they are the whole file.

    lightning: whether Lightning wrote the file. It puts the name of an attribute before the name of every tensor.
    """

    tensors: Mapping[str, Tensor]
    entry: str
    lightning: bool = False


def read_checkpoint(path: Path, entry: str | None = None) -> list[StateDict]:
    """The state dicts in a file that torch.save or safetensors wrote, at least one. Any suffix is allowed.

    entry: the entry to read, or the first part of the names of the tensors to read. If several entries hold tensors
    and only one of them has a name in KNOWN, only that one is returned.

    Raises UserError if the file is missing, holds no tensors by name, or holds objects other than tensors and settings.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    content = load_tensors(path)[0] if path.suffix == ".safetensors" else _load(path)
    states = list(_state_dicts(content, ""))
    _check(states, path)
    if entry is not None:
        return [_select(states, entry, path)]
    if not states:
        raise UserError(
            f"{path}: holds {_described(content)} and no tensors by name; allowed: a state dict, or a dict with one"
        )
    known = [state for state in states if state.entry.split(".")[-1] in KNOWN]
    return known if len(known) == 1 else states


def _check(states: Sequence[StateDict], path: Path) -> None:
    """UserError for tensors that no file of weights can hold."""
    size = path.stat().st_size
    for name, tensor in (item for state in states for item in state.tensors.items()):
        shown, needed = f"{on_one_line(name)!r} {list(tensor.shape)}", tensor.numel() * tensor.element_size()
        if tensor.is_meta:
            raise UserError(f"{path}: tensor {shown} has no values; allowed: tensors that were saved with their values")
        if tensor.is_complex():
            raise UserError(f"{path}: tensor {shown} holds complex numbers; allowed: real numbers")
        if needed > max(size, tensor.untyped_storage().nbytes()):  # one value that a step of 0 repeats
            raise UserError(f"{path}: tensor {shown} has more values than the file; allowed: at most as many")
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"{path}: the name of tensor {shown} is not UTF-8; allowed: UTF-8 text")
    storages = [tensor.untyped_storage() for state in states for tensor in state.tensors.values()]
    needed, there = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()), _stored_bytes(path)
    if there is not None and needed > there:  # torch 2.6 would read whatever lies behind the file's content
        raise UserError(
            f"{path}: can't be read as tensors only, because it is damaged: tensors of {needed} bytes, but {there} are "
            "there; allowed: a whole file"
        )


def _select(states: Sequence[StateDict], entry: str, path: Path) -> StateDict:
    for chosen in (
        [state for state in states if state.entry == entry],
        [state for state in states if state.entry.split(".")[-1] == entry],
        [part for state in states if (part := _part(state, f"{entry}.")).tensors],
    ):
        if len(chosen) == 1:
            return chosen[0]
    raise UserError(
        f"{path}: --entry {entry!r} matches no tensors, or those of several entries; allowed: {_entries(states)}"
    )


def _part(state: StateDict, prefix: str) -> StateDict:
    """The tensors whose names begin with the prefix, without it."""
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.tensors.items() if name.startswith(prefix)}
    return StateDict(inside, prefix.rstrip("."))


def only(states: Sequence[StateDict], path: Path) -> StateDict:
    """The only state dict; raises UserError if there are several."""
    if len(states) > 1:
        raise UserError(f"{path}: holds {len(states)} state dicts; needed: --entry, one of {_entries(states)}")
    return states[0]


def _entries(states: Sequence[StateDict]) -> str:
    names = ", ".join(state.entry or "the file itself" for state in states)
    return names or "none, because no entry has tensors by name"


def _state_dicts(value: Any, entry: str, lightning: bool = False) -> Iterator[StateDict]:
    if (tensors := _tensors(value)) is not None:
        yield StateDict(tensors, entry, lightning)
        return
    if isinstance(value, list | tuple) and len(value) <= len(KNOWN):
        value = {str(place): inner for place, inner in enumerate(value)}
    if not isinstance(value, Mapping) or entry.count(".") + bool(entry) >= MAX_DEPTH:
        return
    lightning = lightning or "pytorch-lightning_version" in value
    for name, inner in value.items():
        if isinstance(name, str) and not any(part in name.lower() for part in SKIPPED):
            yield from _state_dicts(inner, f"{entry}.{name}" if entry else name, lightning)


def _tensors(value: Any) -> Mapping[str, Tensor] | None:
    """The tensors of a state dict, without the numbers and texts beside them; None if it is no state dict."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return None
    tensors = {name: inner for name, inner in value.items() if isinstance(inner, Tensor)}
    others = [inner for inner in value.values() if not isinstance(inner, Tensor)]
    dense = all(tensor.layout == torch.strided and not tensor.is_quantized for tensor in tensors.values())
    simple = all(isinstance(inner, int | float | str | None) for inner in others)
    return tensors if simple and dense and any(tensor.ndim for tensor in tensors.values()) else None


# --- reading what torch.save wrote --------------------------------------------------------------------------------


class _Placeholder:
    """Replaces an object that is not read: it accepts any arguments and any state, and does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _EmptyDict:
    """Replaces a special class of dictionary by a plain dict."""

    def __new__(cls, *_: Any) -> Any:
        return {}


def _load(path: Path) -> Any:
    others = _other_objects(path)
    if code := [name for name in others if not HARMLESS.fullmatch(name)]:
        raise UserError(
            f"{path}: can't be read as tensors only, because it holds other objects ({', '.join(code[:3])}); allowed: "
            "a state dict saved by torch.save, as torch.save(model.state_dict(), path) writes it"
        )
    stand_ins: list[Any] = [(_EmptyDict if name.lower().endswith("dict") else _Placeholder, name) for name in others]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # about a pickle that torch.save did not write; it is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or malicious file can raise errors of many classes
        script = ": it is TorchScript; torch.jit.load(path).state_dict() returns its weights" if _script(path) else ""
        kind = "code, other objects" if isinstance(error, pickle.UnpicklingError) else "another kind of file"
        raise UserError(
            f"{path}: can't be read as tensors only ({kind}, or a damaged file){script}; allowed: a state dict saved "
            "by torch.save"
        ) from None


def _other_objects(path: Path) -> list[str]:
    """Names of the objects other than tensors in a file. The pickle is read, but not executed."""
    try:
        return sorted(map(on_one_line, torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    except Exception:  # not in torch's newer format: torch.load reads or refuses it
        return []


def _stored_bytes(path: Path) -> int | None:
    """How many bytes of tensors a file holds; None where it is not in torch's newer format."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist() if "/data/" in entry.filename)
    except Exception:  # zipfile raises errors of many kinds for damaged files
        return None


def _script(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # zipfile raises errors of many kinds for damaged files
        return False


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    keys = ", ".join(on_one_line(str(key)) for key in list(content)[:3])
    return f"a dict with {counted(len(content), 'key', 'keys')} ({keys}{', ...' if len(content) > 3 else ''})"
