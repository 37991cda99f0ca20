"""Weights on disk: safetensors only, written whole or not at all; foreign .pth files are converted, never run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, save_tensors

WRAPPING_KEYS = ("state_dict", "model", "net")  # where training scripts keep the state dict in a checkpoint
FORMAT = {"format": "pt"}  # without it other readers of safetensors don't take the tensors for torch's


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write all parameters and buffers of ``network`` to ``path`` (.safetensors), as they are or not at all.

    A tensor that stands under two names (tied weights) is written under both. Raises UserError for another suffix
    and for a state that isn't all tensors.
    """
    path = Path(path)
    _check_suffix(path)
    state = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"entry {name!r} of the state of {type(network).__name__} is {type(value).__name__}; allowed: tensors"
            )
    save_tensors(path, state, FORMAT)


def load_weights(network: nn.Module, path: str | Path, may_lack: str | None = None) -> None:
    """Fill ``network`` with the tensors of a .safetensors file; nothing is changed where the two don't match.

    may_lack: what the names of those tensors begin with that stay as they are where the file has none of them.

    Raises UserError for a file that is missing, of another kind or damaged, and names the first key that is
    missing, not expected, or of another shape.
    """
    found, needed = read_safetensors(path), network.state_dict()
    if may_lack is not None and not any(name.startswith(may_lack) for name in found):
        found |= {name: tensor for name, tensor in needed.items() if name.startswith(may_lack)}
    check_names(network, found, path)
    for name, tensor in needed.items():
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{path}: key {name!r} has shape {list(found[name].shape)}; {type(network).__name__} needs "
                f"{list(tensor.shape)}"
            )
    network.load_state_dict(found)


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file; UserError for one that is missing, of another kind or damaged."""
    path = Path(path)
    _check_suffix(path)
    return load_tensors(path)[0]


def check_names(network: nn.Module, found: Mapping[str, Tensor], where: str | Path) -> None:
    """UserError, naming the first key, where ``found`` has not exactly the names of ``network``'s tensors."""
    needed, kind = network.state_dict(), type(network).__name__
    for name in needed:
        if name not in found:
            raise UserError(f"{where}: key {name!r} is missing; {kind} needs it")
    for name in found:
        if name not in needed:
            raise UserError(f"{where}: key {name!r} is not expected; {kind} has no such tensor")


def convert_pth(src: str | Path, dst: str | Path, *, mean: Tensor | None = None, std: Tensor | None = None) -> None:
    """Turn a .pth or .pt checkpoint from elsewhere into a .safetensors file, without running what may be in it.

    ``src`` holds a state dict, or a dict with one under ``state_dict``, ``model`` or ``net``; a ``module.`` that
    all names begin with is taken off. ``mean`` and ``std``, both [C] and for images in [0, 1]: the normalisation
    that the weights were trained with, which the networks of this package keep among their weights.

    Raises UserError for anything else.
    """
    src, dst = Path(src), Path(dst)
    _check_suffix(dst)
    if (mean is None) != (std is None):
        raise UserError("only one of mean and std is given; allowed: both or none")
    state = read_pth(src)
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if mean is not None and std is not None:
        state = {**state, "normalise.mean": mean.view(1, -1, 1, 1), "normalise.std": std.view(1, -1, 1, 1)}
    save_tensors(dst, state, FORMAT)


def read_pth(src: Path) -> Mapping[str, Tensor]:
    """The state dict in a .pth or .pt file, as :func:`convert_pth` describes it; nothing in the file is run."""
    if src.suffix not in {".pth", ".pt"}:
        raise UserError(f"{src}: the suffix is {src.suffix!r}; allowed: .pth, .pt")
    if not src.is_file():
        raise UserError(f"{src}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that torch.save did not write; it is refused below
            content = torch.load(src, map_location="cpu", weights_only=True)
    except Exception:  # torch names no common class for what a damaged or hostile file makes it raise
        raise UserError(
            f"{src}: can't be read as tensors alone (code, other objects, or a damaged file); "
            "allowed: a state dict saved by torch.save"
        ) from None
    return _state_dict(content, src)


def _state_dict(content: Any, src: Path) -> Mapping[str, Tensor]:
    if _is_state_dict(content):
        found: Mapping[str, Tensor] = content
        return found
    wrapped = [content[key] for key in WRAPPING_KEYS if key in content] if isinstance(content, Mapping) else []
    inner = [value for value in wrapped if _is_state_dict(value)]  # "model" may well hold the model's name
    if len(inner) != 1:
        raise UserError(
            f"{src}: holds {_described(content)} and {len(inner)} state dicts under known keys; "
            f"allowed: a state dict, or a dict with exactly one under {', '.join(WRAPPING_KEYS)}"
        )
    state: Mapping[str, Tensor] = inner[0]
    return state


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(
            isinstance(name, str)
            and isinstance(tensor, Tensor)
            and tensor.layout == torch.strided
            and not tensor.is_quantized
            for name, tensor in value.items()
        )
    )


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    shown = ", ".join(str(key) for key in list(content)[:3])
    return f"a dict with {len(content)} keys ({shown}{', ...' if len(content) > 3 else ''})"


def _check_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        hint = "; a .pth or .pt file can be converted" if path.suffix in {".pth", ".pt"} else ""
        raise UserError(f"{path}: the suffix is {path.suffix!r}; allowed: .safetensors{hint}")
