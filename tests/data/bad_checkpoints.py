"""Files of weights whose headers lie, whose tensors can't be had, or that are no files of weights."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Make = Callable[[Path], Path]
NO_TENSORS = "is not a safetensors file ("
NO_CHECKPOINT = "can't be read as tensors only"


def safetensors(
    header: Any, content: bytes = bytes(16), length: int | None = None, name: str = "a.safetensors"
) -> Make:
    """A file with this header, as JSON or as bytes. length: what the file says its header has."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + content)
        return folder / name

    return make


def tensor(dtype: str = "F32", shape: Any = (2, 2), offsets: Any = (0, 16), **more: Any) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}}


def saved(content: Any, name: str = "a.pth", **options: Any) -> Make:
    def make(folder: Path) -> Path:
        torch.save(content, folder / name, **options)
        return folder / name

    return make


def raw(content: bytes, name: str = "a.pth") -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _bytes_of(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


STATE = {"weight": torch.arange(6.0).view(2, 3)}
WHOLE = _bytes_of(STATE)


def _rewritten(change: Callable[[str, bytes], bytes | None]) -> bytes:
    """The file with its members changed, or left out where None is returned."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return stream.getvalue()


class Rebuilt:
    """Pickled as a call of torch that makes a tensor of a storage, with numbers that need not fit."""

    def __init__(self, *numbers: Any) -> None:
        self.numbers = numbers

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, (torch.zeros(4).untyped_storage(), *self.numbers)


def folder_named(name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


# --- .safetensors: name -> (how it is made, part of the sentence) -----------------------------------------------------

SAFETENSORS: dict[str, tuple[Make, str]] = {
    "nothing": (raw(b"", "a.safetensors"), NO_TENSORS),
    "four bytes": (raw(b"abcd", "a.safetensors"), NO_TENSORS),
    "a header longer than the file": (safetensors(tensor(), length=10**6), NO_TENSORS),
    "a header of 2**63 bytes": (safetensors(tensor(), length=2**63), NO_TENSORS),
    "a header of no bytes": (safetensors(tensor(), length=0), NO_TENSORS),
    "a header that is cut": (safetensors(tensor(), length=20), NO_TENSORS),
    "a header that is no JSON": (safetensors(b"{'a': 1}"), NO_TENSORS),
    "a header that is no text": (safetensors(b"\xff" * 40), NO_TENSORS),
    "a header that is a list": (safetensors([1]), NO_TENSORS),
    "a deep header": (safetensors(b"[" * 100_000), NO_TENSORS),
    "a tensor that is a number": (safetensors({"a": 7}), NO_TENSORS),
    "a tensor without a shape": (safetensors({"a": {"dtype": "F32", "data_offsets": [0, 16]}}), NO_TENSORS),
    "an unknown type": (safetensors(tensor("F77")), NO_TENSORS),
    "a shape below zero": (safetensors(tensor(shape=(-2, 2))), NO_TENSORS),
    "a shape of text": (safetensors(tensor(shape=("a",))), NO_TENSORS),
    "a shape that is larger than its content": (safetensors(tensor(shape=(200, 200))), NO_TENSORS),
    "a shape that is beyond all numbers": (safetensors(tensor(shape=(2**40, 2**40))), NO_TENSORS),
    "content behind the end": (safetensors(tensor(offsets=(16, 32))), NO_TENSORS),
    "content that ends before it begins": (safetensors(tensor(offsets=(16, 0))), NO_TENSORS),
    "content of 2**62 bytes": (safetensors(tensor(shape=(2**60,), offsets=(0, 2**62))), NO_TENSORS),
    "two tensors in one place": (
        safetensors({**tensor(), "b": tensor()["a"]}),
        NO_TENSORS,
    ),
    "a hole between tensors": (
        safetensors({**tensor(), "b": tensor(offsets=(32, 48))["a"]}, bytes(48)),
        NO_TENSORS,
    ),
    "content that no tensor names": (safetensors(tensor(), bytes(64)), NO_TENSORS),
    "metadata of numbers": (safetensors({**tensor(), "__metadata__": {"a": 1}}), NO_TENSORS),
    "metadata that is a list": (safetensors({**tensor(), "__metadata__": [1]}), NO_TENSORS),
    "half of the content": (safetensors(tensor(), bytes(8)), NO_TENSORS),
    "a pickle": (raw(pickle.dumps({"a": 1}), "a.safetensors"), NO_TENSORS),
    "a file of torch.save": (raw(WHOLE, "a.safetensors"), NO_TENSORS),
    "a folder": (folder_named("a.safetensors"), "no such file"),
    "no tensors": (safetensors({}, b""), "holds a dict with 0 keys () and no tensors by name"),
    "single numbers alone": (safetensors(tensor(shape=(), offsets=(0, 4)), bytes(4)), "and no tensors by name"),
    "complex numbers": (safetensors(tensor("C64", (2,))), "holds complex numbers; allowed: real numbers"),
}

# --- what torch.save writes -----------------------------------------------------------------------------------------

SAVED: dict[str, tuple[Make, str]] = {
    "nothing": (raw(b""), NO_CHECKPOINT),
    "a text": (raw(b"neither\n" * 20), NO_CHECKPOINT),
    "zeros": (raw(bytes(1000)), NO_CHECKPOINT),
    "a page of the web": (raw(b"<!DOCTYPE html><html></html>"), NO_CHECKPOINT),
    "a cut file": (raw(WHOLE[: len(WHOLE) // 2]), NO_CHECKPOINT),
    "a file cut by a byte": (raw(WHOLE[:-1]), NO_CHECKPOINT),
    "a zip without a pickle": (raw(_rewritten(lambda name, content: None)), NO_CHECKPOINT),
    "a zip without its content": (
        raw(_rewritten(lambda name, content: None if "/data/" in name else content)),
        NO_CHECKPOINT,
    ),
    "a zip with half of its content": (
        raw(_rewritten(lambda name, content: content[:12] if "/data/" in name else content)),
        NO_CHECKPOINT,
    ),
    "a zip whose pickle is cut": (
        raw(_rewritten(lambda name, content: content[:30] if name.endswith(".pkl") else content)),
        NO_CHECKPOINT,
    ),
    "a zip whose pickle never ends": (
        raw(_rewritten(lambda name, content: b"\x80\x02" + b"(" * 10**5 if name.endswith(".pkl") else content)),
        NO_CHECKPOINT,
    ),
    "a pickle of nothing by torch": (raw(pickle.dumps({"a": 1})), NO_CHECKPOINT),
    "a tensor beyond its content": (saved({"a": Rebuilt(0, (100, 100), (100, 1), False, {})}), ""),
    "a tensor behind its content": (saved({"a": Rebuilt(100, (2,), (1,), False, {})}), ""),
    "a tensor before its content": (saved({"a": Rebuilt(-1, (2,), (1,), False, {})}), ""),
    "a tensor with steps below zero": (saved({"a": Rebuilt(3, (4,), (-1,), False, {})}), ""),
    "a tensor of a size below zero": (saved({"a": Rebuilt(0, (-4,), (1,), False, {})}), ""),
    "a tensor of text": (saved({"a": Rebuilt("0", ("4",), ("1",), False, {})}), ""),
    "one number as a trillion": (
        saved({"a": torch.zeros(1).expand(10**6, 10**6)}),
        "tensor 'a' [1000000, 1000000] has more values than the file",
    ),
    "tensors without content": (saved({"a": torch.zeros(3, device="meta")}), "tensor 'a' [3] has no values"),
    "sparse tensors": (saved({"a": torch.eye(3).to_sparse()}), "and no tensors by name"),
    "numbers alone": (saved({"a": 1, "b": 2.0}), "and no tensors by name"),
    "a list of numbers": (saved([1, 2, 3]), "and no tensors by name"),
    "one tensor": (saved(torch.zeros(3)), "and no tensors by name"),
    "keys that are numbers": (saved({1: torch.zeros(3)}), "and no tensors by name"),
    "complex numbers": (
        saved({"a": torch.zeros(3, dtype=torch.complex64)}),
        "holds complex numbers; allowed: real numbers",
    ),
    "complex numbers of 16 bytes": (
        saved({"a": torch.zeros(3, dtype=torch.complex128)}),
        "holds complex numbers; allowed: real numbers",
    ),
    "a name that is half of a pair": (saved({"\ud83d": torch.zeros(3)}), "is not UTF-8; allowed: UTF-8 text"),
    "a mapping inside itself": (saved((lambda value: value.update(a=value) or value)({})), "and no tensors by name"),
    "a folder": (folder_named("a.pth"), "no such file"),
}

# --- what is read: name -> (how it is made, the tensors) --------------------------------------------------------------

READ: dict[str, tuple[Make, dict[str, torch.Tensor]]] = {
    "a good file": (saved(STATE), STATE),
    "the old format of torch.save": (saved(STATE, _use_new_zipfile_serialization=False), STATE),
    "under a wrong name": (saved(STATE, "a.bin"), STATE),
    "a part of a larger tensor": (saved({"a": torch.arange(100.0)[3:5]}), {"a": torch.tensor([3.0, 4.0])}),
    "a turned tensor": (saved({"a": torch.arange(6.0).view(2, 3).t()}), {"a": torch.arange(6.0).view(2, 3).t()}),
    "a repeated number": (saved({"a": torch.ones(1).expand(3, 3)}), {"a": torch.ones(3, 3)}),
    "half floats": (saved({"a": torch.ones(3).bfloat16()}), {"a": torch.ones(3).bfloat16()}),
    "whole numbers": (saved({"a": torch.tensor([1, 2])}), {"a": torch.tensor([1, 2])}),
    "names of line ends": (saved({"a\nb": torch.ones(2)}), {"a\nb": torch.ones(2)}),
    "a good file of safetensors": (safetensors(tensor()), {"a": torch.zeros(2, 2)}),
    "space behind the header": (safetensors(json.dumps(tensor()).encode() + b"   "), {"a": torch.zeros(2, 2)}),
    "an empty tensor": (
        safetensors({**tensor(), "b": {"dtype": "F32", "shape": [0, 3], "data_offsets": [16, 16]}}),
        {"a": torch.zeros(2, 2), "b": torch.zeros(0, 3)},
    ),
}
