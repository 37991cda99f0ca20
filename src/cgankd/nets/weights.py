"""Reads files of weights: .safetensors only (foreign files: conversion.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors
from cgankd.core.numbers import counted
from cgankd.core.terminal import on_one_line
from cgankd.nets.layers import Normalise, check_normalisations
from cgankd.nets.wrappings import renamed

PYTORCHS = {".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pickle", ".th"}
FEW = 4  # tensors named in an error message


def load_weights(network: nn.Module, path: str | Path, may_lack: str | None = None) -> None:
    """Load the tensors of a .safetensors file into ``network``; nothing changes if the two don't match.

    Known prefixes of the names are removed (:mod:`cgankd.nets.wrappings`). may_lack: a prefix of tensor names; if the
    file has no tensor with it, the network keeps its own.

    Raises UserError if the file is missing, damaged or of another format, if a key is missing, not expected or of
    another shape, and if the normalisation can't be of images in [0, 1].
    """
    needed = network.state_dict()
    tensors = renamed(read_safetensors(path), needed, path)
    if may_lack is not None and not any(name.startswith(may_lack) for name in tensors):
        tensors |= {name: tensor for name, tensor in needed.items() if name.startswith(may_lack)}
    network.load_state_dict(fitting(network, tensors, path))


def fitting(
    network: nn.Module, tensors: Mapping[str, Tensor], where: str | Path, beside: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """``tensors`` in the order of the network's own. Raises UserError if names or shapes differ.

    beside: tensors that are added to ``tensors``, or replace those of the same name. Missing counts of batches, which
    files from before torch 0.4.1 lack, are taken from the network.
    """
    needed = network.state_dict()
    counts = {name: tensor for name, tensor in needed.items() if name.endswith(".num_batches_tracked")}
    optional = {**counts, **(beside or {})}
    check_names(network, tensors, where, may_lack=optional)
    tensors = {**counts, **tensors, **(beside or {})}
    for name, tensor in needed.items():
        if tensors[name].shape != tensor.shape:
            raise UserError(
                f"{where}: key {name!r} has shape {list(tensors[name].shape)}; {type(network).__name__} needs "
                f"{list(tensor.shape)}"
            )
        if tensors[name].is_floating_point() and bool(tensors[name].isnan().any()):
            raise UserError(f"{where}: key {name!r} holds nan; needed: weights without nan")
    check_normalisations(network, tensors, where)
    return {name: tensors[name] for name in needed}


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file. Raises UserError if it is missing, damaged or of another format."""
    path = Path(path)
    check_suffix(path)
    return load_tensors(path)[0]


def check_names(
    network: nn.Module, tensors: Mapping[str, Tensor], where: str | Path, may_lack: Collection[str] = ()
) -> None:
    """UserError, naming the first wrong key, if names differ from the network's. may_lack: optional names."""
    needed, kind = network.state_dict(), type(network).__name__
    for name in needed:
        if name not in tensors and name not in may_lack:
            hint = ""
            if isinstance(network.get_submodule(name.rpartition(".")[0]), Normalise):
                hint = " (cgankd convert-weights adds it, with the --mean and --std of the training)"
            raise UserError(f"{where}: key {name!r} is missing; {kind} needs it{hint}; {_comparison(tensors, needed)}")
    for name in tensors:
        if name not in needed:
            raise UserError(
                f"{where}: key {name!r} is not expected; {kind} has no such tensor; {_comparison(tensors, needed)}"
            )


def _comparison(tensors: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> str:
    return f"the file holds {listed(tensors)}; needed are {listed(needed)}"


def listed(tensors: Mapping[str, Tensor]) -> str:
    """The number of tensors, and the first few with their shapes.

    >>> import torch
    >>> listed({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
    '2 tensors (weight [2, 3], bias [2])'
    >>> listed({"bias": torch.zeros(2)})
    '1 tensor (bias [2])'
    """
    first = [f"{on_one_line(name)} {list(tensor.shape)}" for name, tensor in list(tensors.items())[:FEW]]
    return f"{counted(len(tensors), 'tensor', 'tensors')} ({', '.join(first)}{', ...' if len(tensors) > FEW else ''})"


def check_suffix(path: Path) -> None:
    """UserError if the suffix is not .safetensors."""
    if path.suffix != ".safetensors":
        hint = "; cgankd convert-weights converts a PyTorch file" if path.suffix in PYTORCHS else ""
        raise UserError(f"{path}: the suffix is {path.suffix!r}; allowed: .safetensors{hint}")
