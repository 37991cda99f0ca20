"""Checkpoints from elsewhere: the tensors in them, wherever a training script put them; nothing in a file is run."""

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
from cgankd.core.terminal import on_one_line

# Where training scripts keep the weights: the plain ones, those of the paper's authors, and averages (EMA).
KNOWN = (
    "state_dict", "model_state_dict", "net_state_dict", "model", "net", "network", "weights", "params",
    "ema", "model_ema", "state_dict_ema", "ema_state_dict", "module",
)  # fmt: skip
PASSED_OVER = ("optim", "sched", "scaler")  # in names of entries whose tensors are no network's
DEEPEST = 3  # entries within entries
# Settings and scores that lie beside the weights. Placeholders take their place, so none of their code is run.
HARMLESS = re.compile(
    r"(argparse\.Namespace|types\.SimpleNamespace|pathlib\.\w+|datetime\.\w+|numpy\.[\w.]+|builtins\.(list|dict|set|int|"
    r"float|str)|collections\.defaultdict|easydict\.EasyDict|lightning(\.|_fabric\.)[\w.]*AttributeDict|"
    r"pytorch_lightning\.[\w.]*AttributeDict)"
)


@dataclasses.dataclass(frozen=True)
class StateDict:
    """Tensors by name. entry: where in the file they lie, as ``model.state_dict``; empty: they are the file.

    lightning: whether Lightning wrote the file, which puts the name of an attribute before every tensor's.
    """

    tensors: Mapping[str, Tensor]
    entry: str
    lightning: bool = False


def read_checkpoint(path: Path, entry: str | None = None) -> list[StateDict]:
    """The state dicts in a file that torch.save or safetensors wrote, of any suffix; one at least.

    entry: the only one that is wanted, or the first part of the names of the wanted tensors. Where several entries
    hold tensors and only one has a name that is KNOWN, it is the only one.

    Raises UserError for a file that is missing, that holds no tensors by name, or more than tensors and settings.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    content = load_tensors(path)[0] if path.suffix == ".safetensors" else _load(path)
    found = list(_state_dicts(content, ""))
    if entry is not None:
        return [_named(found, entry, path)]
    if not found:
        raise UserError(
            f"{path}: holds {_described(content)} and no tensors by name; allowed: a state dict, or a dict with one"
        )
    known = [state for state in found if state.entry.split(".")[-1] in KNOWN]
    return known if len(known) == 1 else found


def _named(found: Sequence[StateDict], entry: str, path: Path) -> StateDict:
    for chosen in (
        [state for state in found if state.entry == entry],
        [state for state in found if state.entry.split(".")[-1] == entry],
        [part for state in found if (part := _part(state, f"{entry}.")).tensors],
    ):
        if len(chosen) == 1:
            return chosen[0]
    raise UserError(f"{path}: --entry {entry!r} names no tensors, or those of several; allowed: {_entries(found)}")


def _part(state: StateDict, prefix: str) -> StateDict:
    """The tensors whose names begin so, without that beginning."""
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.tensors.items() if name.startswith(prefix)}
    return StateDict(inside, prefix.rstrip("."))


def only(found: Sequence[StateDict], path: Path) -> StateDict:
    """The only one; UserError where there are several."""
    if len(found) > 1:
        raise UserError(f"{path}: holds {len(found)} state dicts; needed: --entry, one of {_entries(found)}")
    return found[0]


def _entries(found: Sequence[StateDict]) -> str:
    return ", ".join(state.entry or "the file itself" for state in found) or "none, as no entry has tensors by name"


def _state_dicts(value: Any, entry: str, lightning: bool = False) -> Iterator[StateDict]:
    if (tensors := _tensors(value)) is not None:
        yield StateDict(tensors, entry, lightning)
        return
    if isinstance(value, list | tuple) and len(value) <= len(KNOWN):
        value = {str(place): inner for place, inner in enumerate(value)}
    if not isinstance(value, Mapping) or entry.count(".") + bool(entry) >= DEEPEST:
        return
    lightning = lightning or "pytorch-lightning_version" in value
    for name, inner in value.items():
        if isinstance(name, str) and not any(word in name.lower() for word in PASSED_OVER):
            yield from _state_dicts(inner, f"{entry}.{name}" if entry else name, lightning)


def _tensors(value: Any) -> Mapping[str, Tensor] | None:
    """What a state dict holds, numbers and words beside the tensors left out; None where it is not one."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return None
    tensors = {name: inner for name, inner in value.items() if isinstance(inner, Tensor)}
    others = [inner for inner in value.values() if not isinstance(inner, Tensor)]
    plain = all(tensor.layout == torch.strided and not tensor.is_quantized for tensor in tensors.values())
    whole = all(isinstance(inner, int | float | str | None) for inner in others)
    return tensors if whole and plain and any(tensor.ndim for tensor in tensors.values()) else None


# --- reading what torch.save wrote --------------------------------------------------------------------------------


class _Placeholder:
    """Stands for an object that is not read: it takes whatever such an object is made of, and does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _EmptyDict:
    """Stands for a dictionary of a kind of its own: it becomes a plain one."""

    def __new__(cls, *_: Any) -> Any:
        return {}


def _load(path: Path) -> Any:
    others = _foreign(path)
    if code := [name for name in others if not HARMLESS.fullmatch(name)]:
        raise UserError(
            f"{path}: can't be read as tensors alone, because it holds other objects ({', '.join(code[:3])}); allowed: "
            "a state dict saved by torch.save, as torch.save(model.state_dict(), path) writes it"
        )
    stand_ins: list[Any] = [(_EmptyDict if name.lower().endswith("dict") else _Placeholder, name) for name in others]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # of a pickle that torch.save did not write; it is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common class for what a damaged or hostile file makes it raise
        script = ": it is TorchScript, whose weights torch.jit.load(path).state_dict() gives" if _script(path) else ""
        kind = "code, other objects" if isinstance(error, pickle.UnpicklingError) else "another kind of file"
        raise UserError(
            f"{path}: can't be read as tensors alone ({kind}, or a damaged file){script}; allowed: a state dict saved "
            "by torch.save"
        ) from None


def _foreign(path: Path) -> list[str]:
    """Names of what a file would have made besides tensors, by reading the pickle without following it."""
    try:
        return sorted(map(on_one_line, torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    except Exception:  # not a file of torch's newer format: it is loaded as it is, or refused
        return []


def _script(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    shown = ", ".join(on_one_line(str(key)) for key in list(content)[:3])
    return f"a dict with {len(content)} keys ({shown}{', ...' if len(content) > 3 else ''})"
