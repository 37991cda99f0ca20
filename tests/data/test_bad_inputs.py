"""Every bad input, by name: none ends in a traceback, and none is read in part.

The tables of cases are beside this file: bad_images, image_modes, bad_tables, bad_arrays, bad_parquet, bad_recipes and
bad_checkpoints.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bad_arrays
import bad_checkpoints
import bad_images
import bad_parquet
import bad_recipes
import bad_tables
import image_modes
import pytest
import torch
from bad_inputs import Case
from packaging.version import Version
from published import CIFAR10, cifar_records

from cgankd.cli import main
from cgankd.config import recipe
from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors
from cgankd.data import sources
from cgankd.nets.conversion import convert_pth

CASES: dict[str, Case] = {
    f"{table.__name__.removeprefix('bad_')}: {name}": case
    for table in (bad_images, image_modes, bad_tables, bad_arrays, bad_parquet)
    for name, case in table.CASES.items()
}


# What older versions refuse in other words, or can't write for the test: package, and the version from which it holds.
NEWER = {
    "images: a webp of 20,000x20,000": ("pillow", "13"),
    "image_modes: YCbCr as tif": ("pillow", "13"),
    "arrays: npz: a header that has a type of 4 GB": ("numpy", "2"),
    "parquet: labels of half floats": ("pyarrow", "21"),
}


def refused(reader: Callable[[], object], sentence: str, folder: Path) -> None:
    """The reader refuses with one sentence that holds ``sentence``."""
    with pytest.raises(UserError) as caught:
        reader()
    words = str(caught.value).replace(str(folder), "")
    assert sentence in words
    assert "\n" not in words
    assert len(re.sub(r"(.)\1{99,}", "", words)) < 3000  # without names of thousands of equal letters


def test_there_are_many() -> None:
    assert len(CASES) > 400
    assert sum(bool(case.refused) for case in CASES.values()) > 200
    assert len(bad_recipes.REFUSED) > 60
    assert len(bad_checkpoints.SAFETENSORS) + len(bad_checkpoints.SAVED) > 60


@pytest.mark.parametrize("name", CASES)
def test_data(name: str, tmp_path: Path) -> None:
    package, needed = NEWER.get(name, ("numpy", "1"))
    if Version(version(package)) < Version(needed):
        pytest.skip(f"needs {package} {needed}")
    case = CASES[name]
    source = case.make(tmp_path)
    settings = DataSettings.model_validate({"source": str(source), **case.settings})
    if case.refused:
        refused(lambda: sources.load(settings), case.refused, tmp_path)
    else:
        assert case.check is not None
        case.check(sources.load(settings))


@pytest.mark.parametrize("name", bad_recipes.REFUSED)
def test_recipes_that_are_refused(name: str, tmp_path: Path) -> None:
    content, sentence = bad_recipes.REFUSED[name]
    path = tmp_path / "set.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: recipe.load(str(path)), sentence, tmp_path)


@pytest.mark.parametrize("name", bad_recipes.READ)
def test_recipes_that_are_read(name: str, tmp_path: Path) -> None:
    content, key, expected = bad_recipes.READ[name]
    path = tmp_path / "set.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    value: Any = recipe.load(str(path))
    for part in key.split("."):
        value = getattr(value, part)
    assert value == expected


@pytest.mark.parametrize("override", bad_recipes.OVERRIDES)
def test_overrides(override: str, tmp_path: Path) -> None:
    refused(lambda: recipe.from_tree({}, [override]), bad_recipes.OVERRIDES[override], tmp_path)


@pytest.mark.parametrize("name", bad_checkpoints.SAFETENSORS)
def test_safetensors_that_are_refused(name: str, tmp_path: Path) -> None:
    make, sentence = bad_checkpoints.SAFETENSORS[name]
    refused(lambda: convert_pth(make(tmp_path), tmp_path / "own.safetensors"), sentence, tmp_path)
    assert not (tmp_path / "own.safetensors").exists()


@pytest.mark.parametrize("name", bad_checkpoints.SAVED)
def test_checkpoints_that_are_refused(name: str, tmp_path: Path) -> None:
    make, sentence = bad_checkpoints.SAVED[name]
    refused(lambda: convert_pth(make(tmp_path), tmp_path / "own.safetensors"), sentence, tmp_path)
    assert not (tmp_path / "own.safetensors").exists()


@pytest.mark.parametrize("name", bad_checkpoints.READ)
def test_checkpoints_that_are_read(name: str, tmp_path: Path) -> None:
    make, expected = bad_checkpoints.READ[name]
    convert_pth(make(tmp_path), tmp_path / "own.safetensors")
    tensors, _ = load_tensors(tmp_path / "own.safetensors")
    assert set(tensors) == set(expected)
    for key, tensor in expected.items():
        assert tensors[key].dtype == tensor.dtype
        assert torch.equal(tensors[key], tensor)


# --- the one kind of archive that is unpacked: CIFAR's, into memory ------------------------------------------------


def cifar_archive(home: Path, change: Callable[[tarfile.TarFile], None]) -> None:
    """cifar-10-binary.tar.gz with five good batches, and what ``change`` adds; it comes before the others."""
    (home / "cifar10").mkdir(parents=True)
    labels = list(range(10)) * 3
    members = {f"data_batch_{n}.bin": cifar_records(labels, n) for n in range(1, 6)}
    members |= {"test_batch.bin": cifar_records(labels, 9), "batches.meta.txt": "\n".join(CIFAR10).encode()}
    with tarfile.open(home / "cifar10" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        change(archive)


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)

    return add


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "cifar-10-batches-bin/../../escaped"])
def test_an_archive_that_leaves_its_folder_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "in" / "data"))
    cifar_archive(tmp_path / "in" / "data", _member(name))
    before = sorted(tmp_path.rglob("*"))
    assert len(sources.load(DataSettings(source="cifar10")).test) == 30
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "target", "sentence"),
    [
        (tarfile.SYMTYPE, "/etc/hostname", "data_batch_1.bin is a link; allowed: files"),
        (tarfile.LNKTYPE, "gone.bin", "data_batch_1.bin is a link; allowed: files"),
        (tarfile.DIRTYPE, "", "data_batch_1.bin is a folder, a pipe or a device; allowed: files"),
        (tarfile.FIFOTYPE, "", "data_batch_1.bin is a folder, a pipe or a device; allowed: files"),
    ],
)
def test_an_archive_whose_members_are_no_files(
    kind: bytes, target: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path))
    cifar_archive(tmp_path, _member("cifar-10-batches-bin/data_batch_1.bin", kind, target))
    refused(lambda: sources.load(DataSettings(source="cifar10")), sentence, tmp_path)


# --- on the command line -------------------------------------------------------------------------------------------

COMMANDS: dict[str, tuple[Case, list[str]]] = {
    "a cut image": (bad_images.CASES["png cut at 70%"], ["data", "SOURCE", "size=16"]),
    "a pipe": (bad_images.CASES["a pipe named as an image"], ["data", "SOURCE"]),
    "a table": (bad_tables.CASES["UTF-16 with its mark"], ["data", "SOURCE"]),
    "an archive": (bad_arrays.CASES["npz: an archive with a password"], ["data", "SOURCE"]),
    "a name with line ends": (bad_tables.CASES["a line end inside quotes"], ["init", "SOURCE"]),
    "a name that no file has": (bad_tables.CASES["a name of 5,000 letters"], ["run", "SOURCE"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_with_one_line_and_code_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case, words = COMMANDS[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "here").mkdir()
    source = case.make(tmp_path / "in")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["cgankd", *(str(source) if word == "SOURCE" else word for word in words)])
    with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
        main.main()
    error = capsys.readouterr().err.strip()
    assert stopped.value.code == 2
    assert error.startswith("cgankd: ")
    assert "Traceback" not in error
    assert "\n" not in error
    assert list((tmp_path / "here").iterdir()) == []
