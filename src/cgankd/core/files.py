"""File names, and writing files so that a killed process leaves the old file or the new one, never a part of it."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgankd.core.errors import UserError

if TYPE_CHECKING:  # the commands that read results must not import torch for it
    from torch import Tensor

WINDOWS = os.name == "nt"
STUDENT_FILES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}  # format -> ending
INT8 = "-int8"  # before the ending of an ONNX file with 8-bit weights


def file_name(text: str) -> str:
    """``text`` as a file name: letters, digits, dots and equals signs stay, everything else becomes a dash.

    >>> file_name("fashion, cnn16: a/b=[1]")
    'fashion-cnn16-a-b=-1'
    """
    return re.sub(r"[^\w.=]+", "-", text).strip("-")


def student_stem(row: str, seed: int | None) -> str:
    """The name, without its ending, of a file with another student than the one that ships.

    >>> student_stem("cgan+kd", 1), student_stem("kd", None)
    ('student-cgan-kd-seed1', 'student-kd')
    """
    return "-".join(["student", file_name(row), *([] if seed is None else [f"seed{seed}"])])


def endless(path: Path) -> bool:
    """Whether the path is a pipe or a device, which may never end. Raises OSError where there is nothing."""
    kind = path.stat().st_mode
    return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary file beside ``path``; when the block ends, the file is synced and replaces ``path``.

    If the block raises, the temporary file is removed and ``path`` does not change. durable: False does not wait for
    the disk, for files that are written often and worth nothing after a power cut. Raises UserError where ``path`` is a
    folder, or is below a file.
    """
    if path.is_dir():
        raise UserError(f"{path} can't be written: it is a folder; needed: the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path} can't be written: {path.parent} is no folder") from None
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    if WINDOWS and path.is_dir():
        return  # Windows opens no folders, and writes their entries by itself
    descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)  # there only an open for writing can be flushed
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace ``path`` by ``text`` (UTF-8)."""
    with replacing(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Replace ``path`` by ``value`` as JSON; ValueError for numbers that are not finite."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", durable)


def write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Replace ``path`` by comma-separated values, a line for each row."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def read_json(path: Path) -> Any:
    """What :func:`write_json` wrote; UserError where the file is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not a JSON file") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Replace ``path`` by a safetensors file.

    Tensors are written from where they are; they are copied only from another device, where they are not contiguous,
    or where two share memory, which the format does not allow.
    """
    import safetensors.torch

    plain, storages = dict[str, "Tensor"](), set[int]()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if storage in storages else own
        storages.add(storage)
    with replacing(path) as temporary:
        try:
            safetensors.torch.save_file(plain, temporary, dict(metadata or {}))
        except safetensors.SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None  # such as a full disk


def is_whole(path: Path) -> bool:
    """Whether the file has a header of safetensors and all bytes that it names; the bytes are not read."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt", device="cpu"):
            return True
    except safetensors.SafetensorError:
        return False


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a safetensors file; UserError where it is not one."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a .safetensors file is needed") from None
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} is not a safetensors file ({error}); cgankd convert-weights converts a .pth file to one"
        ) from None
