"""Hashes of values, files, folders and tensors, called keys: equal content has the same key in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

PLAIN = (bool, int, float, str)  # of JSON; a tuple, because a union would be made anew for each of many values


def content_key(*parts: Any) -> str:
    """A hash of ``parts``, which are JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def file_key(path: Path) -> str:
    """A hash of the content of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tensor_key(tensor: Tensor) -> str:
    """A hash of the dtype, shape and values of a tensor."""
    plain = tensor.detach().cpu().contiguous()
    digest = tensor_digest(plain)
    # the last stride must be 1, and that of a contiguous tensor of one element may be any number
    digest.update(plain.flatten().unsqueeze(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensor_digest(tensor: Any) -> hashlib.blake2b:
    """The beginning of :func:`tensor_key`, which takes the bytes of the values next."""
    return hashlib.blake2b(f"{tensor.dtype}:{list(tensor.shape)};".encode(), digest_size=16)


def describe(value: Any) -> Any:
    """``value`` as JSON that changes whenever its content changes.

    Settings and dataclasses become their fields, paths the hash of the file's or folder's content, tensors the hash of
    their values; an object with a ``content_key`` becomes that key. Raises TypeError for anything else, because a key
    that ignores something would return a stale result.
    """
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, BaseModel):  # before content_key, which pydantic looks for in ten times the time
        return {name: describe(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(key := getattr(value, "content_key", None), str):
        return {type(value).__name__: key}
    if isinstance(key := getattr(value, "tensor_key", None), str):  # of rows in a file: that of the tensor
        return key
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Path):
        return _describe_path(value)
    if isinstance(value, Tensor):
        return tensor_key(value)
    raise TypeError(f"{type(value).__name__} has no content key; give it a property content_key")


def _describe_path(path: Path) -> Any:
    if path.is_dir():
        return {str(file.relative_to(path)): file_key(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return file_key(path)
