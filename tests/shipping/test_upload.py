"""A folder that goes to an address: what is there after, what is refused, and how one goes on after a failure."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cgankd.core.errors import UserError
from cgankd.data.remote import local_copy
from cgankd.shipping import upload
from cgankd.shipping.upload import new_place


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made; and no file in fsspec's memory, which the whole process shares."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield tmp_path / "temporary"
    MemoryFileSystem.store.clear()


def fill(folder: Path, images: int = 3) -> None:
    (folder / "train" / "000").mkdir(parents=True)
    (folder / "README.md").write_text("card")
    (folder / "train" / "metadata.csv").write_text("file_name,label\n")
    for number in range(images):
        (folder / "train" / "000" / f"{number}.png").write_bytes(bytes([number]))


NAMES = ["README.md", "train/000/0.png", "train/000/1.png", "train/000/2.png", "train/metadata.csv"]


def test_files_are_uploaded_and_the_temporary_folder_is_removed(tmp_path: Path, temporary: Path) -> None:
    for out in ("memory://bucket/fakes", (tmp_path / "far" / "fakes").as_uri() + "/"):
        with new_place(out) as folder:
            fill(folder)
        fs, root = fsspec.url_to_fs(out)
        assert sorted(path.removeprefix(root + "/") for path in fs.find(root)) == NAMES
        assert fs.cat(f"{root}/train/000/2.png") == b"\2"
        assert list(temporary.iterdir()) == []


def test_tables_go_before_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(MemoryFileSystem, "put_file", lambda self, lpath, rpath, **options: sent.append(rpath))
    with new_place("memory://bucket/fakes") as folder:
        fill(folder)
    assert sent == [f"/bucket/fakes/{NAMES[at]}" for at in (0, 4, 1, 2, 3)]


def test_a_local_folder_is_made_as_before(tmp_path: Path) -> None:
    with new_place(str(tmp_path / "fakes")) as folder:
        fill(folder)
    assert (tmp_path / "fakes" / "README.md").read_text() == "card"
    with (
        pytest.raises(UserError, match="is there already; a new or empty folder is needed"),
        new_place(str(tmp_path / "fakes")),
    ):
        pytest.fail("nothing is written")


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("memory://bucket/full", "--out memory://bucket/full is there already; a new or empty address is needed"),
        ("memory://bucket/full/a.txt", "--out memory://bucket/full/a.txt is there already; a new or empty address"),
        ("http://host/fakes", "--out http://host/fakes: files can't be written there"),
        ("zip://fakes::memory://bucket/a.zip", "files can't be written there"),
        ("hf://owner/name", "--out hf://owner/name is no address for files; allowed: hf://datasets/OWNER/NAME"),
        ("ftp://me:pw@host/fakes", "an address of ftp:// can't be used, because it holds a password"),
    ],
)
def test_where_nothing_may_be_written(out: str, reason: str, temporary: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/full/a.txt", b"mine")
    fsspec.filesystem("memory").makedirs("/bucket/empty")
    with pytest.raises(UserError, match=re.escape(reason)), new_place(out):
        pytest.fail("nothing is written")
    assert list(temporary.iterdir()) == []
    with new_place("memory://bucket/empty") as folder:
        fill(folder)


def test_an_error_while_files_are_made_uploads_nothing(temporary: Path) -> None:
    with pytest.raises(FileNotFoundError), new_place("memory://bucket/fakes") as folder:
        (folder / "gone" / "README.md").write_text("card")
    assert MemoryFileSystem.store == {}
    assert list(temporary.iterdir()) == []


def test_a_failed_upload_says_what_is_there_and_keeps_the_files(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "TOGETHER", 2)
    put_file = MemoryFileSystem.put_file

    def fails(self: MemoryFileSystem, lpath: str, rpath: str, **options: object) -> None:
        if rpath.endswith("2.png"):
            raise ConnectionError("the network\nis down")
        put_file(self, lpath, rpath, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", fails)
    with pytest.raises(UserError) as caught, new_place("memory://bucket/fakes") as folder:
        fill(folder)
    assert str(caught.value) == (
        "memory://bucket/fakes: the upload failed after at least 4 of 5 files (ConnectionError: the network is down); "
        f"all files are in {folder}: upload them from there, or delete what is at the address and give the same "
        "command again"
    )
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == NAMES


class Hub(MemoryFileSystem):
    """A hub with one repository that holds images, and one that is new."""

    protocol = "hf"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("hf://").strip("/")


def test_a_data_set_of_the_hub_gets_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "home"))
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked: list[tuple[str, dict[str, object]]] = []

    class Api:
        def create_repo(self, repo_id: str, **options: object) -> None:
            asked.append((repo_id, options))

        def upload_folder(self, *, folder_path: Path, **options: object) -> None:
            names = sorted(path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*.*"))
            asked.append(("commit", {**options, "names": names}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "hf", Hub)
    hub = Hub()
    hub.pipe_file("/datasets/me/full/a.png", b"mine")
    hub.pipe_file("/datasets/me/fakes/.gitattributes", b"")
    with pytest.raises(UserError, match="hf://datasets/me/full is there already"), new_place("hf://datasets/me/full"):
        pytest.fail("nothing is written")
    for out in ("hf://datasets/me/fakes", "hf://datasets/me/fakes@v1/round/two"):
        with new_place(out) as folder:
            fill(folder)
    assert [name for name, _ in asked] == ["me/fakes", "commit"] * 2
    assert asked[0][1] == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert local_copy("hf://datasets/me/full").name == "full"
    assert local_copy("hf://datasets/me/full/a.png").read_bytes() == b"mine"
    facts = [{key: value for key, value in asked[at][1].items() if key != "commit_message"} for at in (1, 3)]
    assert facts[0] == {
        "repo_id": "me/fakes", "path_in_repo": None, "repo_type": "dataset", "revision": None, "names": NAMES
    }  # fmt: skip
    assert facts[1] == {**facts[0], "path_in_repo": "round/two", "revision": "v1"}
