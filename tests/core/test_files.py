"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import tracemalloc
from pathlib import Path

import pytest
import torch

from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, read_json, replacing, save_tensors, write_json, write_text


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            os._exit(9)

    writer = multiprocessing.get_context("fork").Process(target=write)  # which need not import torch
    writer.start()
    writer.join()
    assert writer.exitcode == 9
    assert path.read_text() == "old"


def test_writing_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    write_text(path, "grüße\n")
    assert path.read_bytes() == "grüße\n".encode()
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_or_a_name_below_a_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be written: it is a folder"):
        write_text(tmp_path, "text")
    (tmp_path / "a").write_text("old")
    for name in ("a/b.csv", "a/b/c.csv"):
        with pytest.raises(UserError, match=f"{name} can't be written: .* is no folder"):
            write_text(tmp_path / name, "text")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_json_round_trip_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"a": [1, 0.1, None, "ü", True], "b": {"c": 1e-300}}
    write_json(path, value)
    assert read_json(path) == value
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            write_json(path, {"loss": bad})
    assert read_json(path) == value
    for content in (b'{"a": 1', b"\xff\xfe", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.json is not a JSON file"):
            read_json(path)


def test_tensors_round_trip_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    base = torch.randn(4, 3, 5, 5)
    tensors = {
        "float": base,
        "channels_last": base.to(memory_format=torch.channels_last),
        "view": base[1:3, :, ::2],
        "same": base,  # two names for one memory
        "bytes": torch.arange(256, dtype=torch.uint8),
        "bf16": base.bfloat16(),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "nan": torch.tensor([float("nan"), -0.0]),
    }
    save_tensors(path, tensors, {"step": "3"})
    found, metadata = load_tensors(path)
    assert metadata == {"step": "3"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].nan_to_num(9), tensor.nan_to_num(9)), name


def test_tensor_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_tensors(tmp_path / "none.safetensors")
    path = tmp_path / "cut.safetensors"
    save_tensors(path, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"cut\.safetensors is not a safetensors file"):
        load_tensors(path)


def test_tensors_are_saved_without_a_copy_and_those_that_share_memory_too(tmp_path: Path) -> None:
    path, numbers = tmp_path / "a.safetensors", torch.arange(1_000_000)
    tracemalloc.start()
    save_tensors(path, {"all": numbers})
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 1_000_000  # of 8 MB
    save_tensors(path, {"all": numbers, "first": numbers[:3], "turned": numbers.view(2, -1).T})
    tensors, _ = load_tensors(path)
    assert tensors["first"].tolist() == [0, 1, 2]
    assert tensors["turned"].shape == (500_000, 2)
    assert tensors["turned"][1].tolist() == [1, 500_001]
    assert torch.equal(tensors["all"], numbers)


def test_no_room_for_tensors_is_an_error_of_the_system(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())
