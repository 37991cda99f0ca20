"""Weights on disk: safetensors only, written whole or not at all (foreign files: conversion.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, save_tensors
from cgankd.core.terminal import on_one_line
from cgankd.nets.layers import Normalise, check_normalisations
from cgankd.nets.wrappings import renamed

PYTORCHS = {".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pickle", ".th"}
FEW = 4  # tensors named in a sentence
FORMAT = {"format": "pt"}  # without it other readers of safetensors don't take the tensors for torch's


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write all parameters and buffers of ``network`` to ``path`` (.safetensors), as they are or not at all.

    A tensor that stands under two names (tied weights) is written under both. Raises UserError for another suffix
    and for a state that isn't all tensors.
    """
    path = Path(path)
    check_suffix(path)
    state = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"entry {name!r} of the state of {type(network).__name__} is {type(value).__name__}; allowed: tensors"
            )
    save_tensors(path, state, FORMAT)


def load_weights(network: nn.Module, path: str | Path, may_lack: str | None = None) -> None:
    """Fill ``network`` with the tensors of a .safetensors file; nothing is changed where the two don't match.

    Known wrappings of the names are taken off (:mod:`cgankd.nets.wrappings`). may_lack: what the names of those
    tensors begin with that stay as they are where the file has none of them.

    Raises UserError for a file that is missing, of another kind or damaged, and names the first key that is
    missing, not expected, or of another shape; and for a normalisation that no images in [0, 1] have.
    """
    needed = network.state_dict()
    found = renamed(read_safetensors(path), needed, path)
    if may_lack is not None and not any(name.startswith(may_lack) for name in found):
        found |= {name: tensor for name, tensor in needed.items() if name.startswith(may_lack)}
    network.load_state_dict(fitting(network, found, path))


def fitting(
    network: nn.Module, found: Mapping[str, Tensor], where: str | Path, beside: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """``found`` in the order of the network's own tensors; UserError where names or shapes differ.

    beside: tensors that take the place of those in ``found``, or that it lacks. Counts of batches, which files from
    before torch 0.4.1 lack, are the network's.
    """
    needed = network.state_dict()
    counts = {name: tensor for name, tensor in needed.items() if name.endswith(".num_batches_tracked")}
    given = {**counts, **(beside or {})}
    check_names(network, found, where, may_lack=given)
    found = {**counts, **found, **(beside or {})}
    for name, tensor in needed.items():
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{where}: key {name!r} has shape {list(found[name].shape)}; {type(network).__name__} needs "
                f"{list(tensor.shape)}"
            )
        if found[name].is_floating_point() and bool(found[name].isnan().any()):
            raise UserError(f"{where}: key {name!r} holds nan; needed: weights of a training that went well")
    check_normalisations(network, found, where)
    return {name: found[name] for name in needed}


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file; UserError for one that is missing, of another kind or damaged."""
    path = Path(path)
    check_suffix(path)
    return load_tensors(path)[0]


def check_names(
    network: nn.Module, found: Mapping[str, Tensor], where: str | Path, may_lack: Collection[str] = ()
) -> None:
    """UserError, naming the first key, where ``found`` has not exactly the names of ``network``'s tensors."""
    needed, kind = network.state_dict(), type(network).__name__
    for name in needed:
        if name not in found and name not in may_lack:
            hint = ""
            if isinstance(network.get_submodule(name.rpartition(".")[0]), Normalise):
                hint = " (cgankd convert-weights writes it, given the --mean and --std of its training)"
            raise UserError(f"{where}: key {name!r} is missing; {kind} needs it{hint}; {_both(found, needed)}")
    for name in found:
        if name not in needed:
            raise UserError(f"{where}: key {name!r} is not expected; {kind} has no such tensor; {_both(found, needed)}")


def _both(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> str:
    return f"the file holds {listed(found)}; needed are {listed(needed)}"


def listed(tensors: Mapping[str, Tensor]) -> str:
    """How many there are, and the first few with their shapes.

    >>> import torch
    >>> listed({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
    '2 tensors (weight [2, 3], bias [2])'
    """
    shown = [f"{on_one_line(name)} {list(tensor.shape)}" for name, tensor in list(tensors.items())[:FEW]]
    return f"{len(tensors)} tensors ({', '.join(shown)}{', ...' if len(tensors) > FEW else ''})"


def check_suffix(path: Path) -> None:
    """UserError for a file that is not called .safetensors."""
    if path.suffix != ".safetensors":
        hint = "; cgankd convert-weights makes one of a PyTorch file" if path.suffix in PYTORCHS else ""
        raise UserError(f"{path}: the suffix is {path.suffix!r}; allowed: .safetensors{hint}")
