"""Images at an address: what is copied and when, what is refused, and that the copy is read as a local folder is."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import re
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from packaging.version import Version
from pictures import class_folders, metadata, noise, write_png

from cgankd.config.recipe import from_tree
from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.progress import Bar, Progress
from cgankd.data import remote, remote_files
from cgankd.data.remote import at_hand, local_copy
from cgankd.data.sources import load
from cgankd.gan.adapters import open_source
from cgankd.planning.look import look
from cgankd.shipping.image_formats import png
from cgankd.tasks import Classification


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of copies; and no file in fsspec's memory, which the whole process shares."""
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "home"))
    MemoryFileSystem.store.clear()
    yield tmp_path / "home" / "remote"
    MemoryFileSystem.store.clear()


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were fetched from memory, in order."""
    files: list[str] = []
    get_file = MemoryFileSystem.get_file

    def counted(self: MemoryFileSystem, rpath: str, lpath: str, **options: object) -> None:
        files.append(rpath)
        get_file(self, rpath, lpath, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    return files


def put(path: Path, address: str) -> str:
    """Everything at ``path`` to the address, and the address."""
    fs, root = fsspec.url_to_fs(address)
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            there = root if path.is_file() else f"{root}/{file.relative_to(path).as_posix()}"
            fs.makedirs(there.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(there, file.read_bytes())
    return address


def content(source: object, **settings: object) -> list[str]:
    """What all keys of a run depend on."""
    splits = load(DataSettings(source=str(source), val_size=4, **settings))
    return [part.content_key for part in (splits.train, splits.val, splits.test)]


def class_folder(folder: Path) -> tuple[Path, dict[str, object]]:
    return class_folders(folder, {"cat": 8, "dog": 8}), {}


def table(folder: Path) -> tuple[Path, dict[str, object]]:
    return metadata(folder, [[f"{n}.png", n / 2 + 0.25] for n in range(16)], ("file_name", "angle")), {
        "label_column": "angle"
    }


def npz(folder: Path) -> tuple[Path, dict[str, object]]:
    images, labels = np.stack([noise(n) for n in range(16)]), np.arange(16) % 2
    path = folder.with_suffix(".npz")
    np.savez(path, images=images, labels=labels)
    return path, {}


def h5(folder: Path) -> tuple[Path, dict[str, object]]:
    import h5py

    path = folder.with_suffix(".h5")
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = np.stack([noise(n) for n in range(16)]), np.arange(16) % 2
    return path, {}


def parquet_folder(folder: Path) -> tuple[Path, dict[str, object]]:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    folder.mkdir()
    for shard in range(2):
        rows = range(shard * 12, shard * 12 + 12)
        columns = {"image": [png(noise(n)) for n in rows], "label": [n % 2 for n in rows]}
        pyarrow.parquet.write_table(pa.table(columns), folder / f"train-{shard:05d}-of-00002.parquet")
    return folder, {}


def parquet(folder: Path) -> tuple[Path, dict[str, object]]:
    whole, _ = parquet_folder(folder)
    path = folder.with_suffix(".parquet")
    shutil.copy(next(whole.iterdir()), path)
    return path, {}


def tar(folder: Path) -> tuple[Path, dict[str, object]]:
    webdataset = pytest.importorskip("webdataset")
    path = folder.with_suffix(".tar")
    with webdataset.TarWriter(str(path)) as sink:
        for n in range(16):
            sink.write({"__key__": f"{n:06d}", "png": png(noise(n)), "cls": str(n % 2)})
    return path, {}


@pytest.mark.parametrize("make", [class_folder, table, npz, h5, parquet_folder, parquet, tar])
@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_every_layout_is_read_from_an_address_as_from_a_folder(
    make: Callable[[Path], tuple[Path, dict[str, object]]], protocol: str, tmp_path: Path
) -> None:
    path, settings = make(tmp_path / "set")
    begin = "memory://bucket" if protocol == "memory" else (tmp_path / "far").as_uri()
    address = put(path, f"{begin}/{path.name}")
    own = content(path, **settings)
    assert content(address, **settings) == own
    assert content(f"{address}/" if path.is_dir() else address, **settings) == own
    assert load(DataSettings(source=address, val_size=4, **settings)).name == "set"


def test_files_are_copied_once_and_again_only_where_they_have_changed(
    tmp_path: Path, home: Path, fetched: list[str]
) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 3, "dog": 3}), "memory://bucket/set")
    first = local_copy(address)
    assert sorted(fetched) == [f"/bucket/set/{label}/{n:03}.png" for label in ("cat", "dog") for n in range(3)]
    fetched.clear()
    assert local_copy(address) == first
    assert fetched == []

    changed = write_png(tmp_path / "other.png", seed=99)
    put(changed, "memory://bucket/set/dog/001.png")
    fsspec.filesystem("memory").rm("/bucket/set/cat/000.png")
    second = local_copy(address)
    assert fetched == ["/bucket/set/dog/001.png"]
    assert (second / "dog" / "001.png").read_bytes() == changed.read_bytes()
    assert sorted(path.name for path in (second / "cat").iterdir()) == ["001.png", "002.png"]
    assert not first.exists()
    assert [path.name for path in home.glob("*/*")] == [second.parent.name]  # nothing else is left


def test_a_file_of_the_same_size_is_known_by_its_time(tmp_path: Path) -> None:
    path = tmp_path / "far" / "a.txt"
    path.parent.mkdir()
    path.write_text("one")
    assert local_copy(path.as_uri()).read_text() == "one"
    path.write_text("two")
    assert local_copy(path.as_uri()).read_text() == "two"


def test_a_link_counts_as_the_file_that_it_leads_to(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "far", {"cat": 1})
    (folder / "cat" / "link.png").symlink_to(folder / "cat" / "000.png")
    (folder / "cat" / "broken.png").symlink_to(folder / "nothing")
    copy = local_copy(folder.as_uri())
    assert sorted(path.name for path in (copy / "cat").iterdir()) == ["000.png", "link.png"]
    (folder / "dog").symlink_to(folder / "cat")
    with pytest.raises(UserError, match="dog is a link to a folder, which is not followed"):
        local_copy(folder.as_uri())


def test_a_copy_that_was_killed_is_not_taken_for_whole_and_goes_on(
    tmp_path: Path, home: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 5, "dog": 5}), "memory://bucket/set")
    monkeypatch.setattr(remote, "TOGETHER", 2)
    get_file = MemoryFileSystem.get_file

    def killed(self: MemoryFileSystem, rpath: str, lpath: str, **options: object) -> None:
        get_file(self, rpath, lpath, **options)
        if rpath.endswith("dog/000.png"):
            Path(lpath).write_bytes(b"half")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", killed)
        with pytest.raises(KeyboardInterrupt):
            local_copy(address)
    assert not list(home.glob("*/[!.]*"))  # no version is there
    (next(home.glob("*/.*.part")) / f"{remote.COMING}killed").mkdir()  # as a process leaves it that can't clean up
    fetched.clear()
    copy = local_copy(address)
    assert sorted(fetched) == ["/bucket/set/cat/004.png", *(f"/bucket/set/dog/{n:03}.png" for n in range(5))]
    assert all((copy / file.relative_to(tmp_path / "set")).read_bytes() == file.read_bytes()
               for file in (tmp_path / "set").rglob("*.png"))  # fmt: skip
    assert sorted(path.name for path in copy.parent.iterdir()) == [remote.LIST, "set"]


def test_a_copy_that_the_user_has_deleted_is_made_again(tmp_path: Path) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 2}), "memory://bucket/set")
    shutil.rmtree(local_copy(address))
    assert len(list(local_copy(address).rglob("*.png"))) == 2


def test_a_file_that_ends_early_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 2}), "memory://bucket/set")
    monkeypatch.setattr(
        MemoryFileSystem, "get_file", lambda self, rpath, lpath, **options: Path(lpath).write_bytes(b"x")
    )
    with pytest.raises(UserError, match=r"the copy of /bucket/set/cat/000.png has not the [\d,]+ bytes that were"):
        local_copy(address)


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_copied(
    tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 2}), "memory://bucket/set")
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"memory://bucket/set: 0 MB are to be copied to .*, where 0 MB are free"):
        local_copy(address)
    assert fetched == []


lists_any_name = pytest.mark.skipif(
    Version(fsspec.__version__) < Version("2026.9"),
    reason="earlier memory:// file systems list such names in other ways",
)


@lists_any_name
@pytest.mark.parametrize(
    "name",
    ["../out.png", "cat/../../out.png", "cat\\..\\out.png", "/abs.png", "cat//a.png", "C:/out.png", "./a.png", "a\0"],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path, fetched: list[str]) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 2}), "memory://bucket/set")
    MemoryFileSystem.store[f"/bucket/set/{name}"] = MemoryFileSystem.store["/bucket/set/cat/000.png"]
    with pytest.raises(UserError, match="can't be a file below a folder"):
        local_copy(address)
    assert fetched == []


@lists_any_name
def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 2}), "memory://bucket/set")
    MemoryFileSystem.store["/bucket/set/cat"] = MemoryFileSystem.store["/bucket/set/cat/000.png"]
    with pytest.raises(UserError, match="/bucket/set/cat is both a file and a folder"):
        local_copy(address)


def test_what_can_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"memory://bucket/gone can't be read: there is no such file or folder$"):
        content("memory://bucket/gone")
    fsspec.filesystem("memory").makedirs("/bucket/empty")
    with pytest.raises(UserError, match="memory://bucket/empty is an empty folder; needed: images"):
        content("memory://bucket/empty")
    with pytest.raises(UserError, match=r"fsspec knows no htp:// \(did you mean 'http'\?\)"):
        content("htp://host/a.npz")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://bucket/a: a package is missing: Install s3fs to access S3$"):
        content("s3://bucket/a")

    def fails(self: MemoryFileSystem, path: str) -> None:
        raise PermissionError("Forbidden\nfor ftp://me:pw@host/a")

    monkeypatch.setattr(MemoryFileSystem, "info", fails)
    sentence = "can't be read: PermissionError: Forbidden for ftp://...@host/a$"
    with pytest.raises(UserError, match=re.escape(sentence[:-1]) + "$"):
        content("memory://bucket/set")


def test_without_the_other_side_the_earlier_copy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 8, "dog": 8}), "memory://bucket/set")
    copy = local_copy(address)

    def fails(self: MemoryFileSystem, path: str) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(MemoryFileSystem, "info", fails)
    with pytest.raises(UserError, match=f"TimeoutError: no answer; an earlier copy is {copy}, which can be named"):
        content(address)
    assert content(copy)


def test_a_listing_that_fails_in_a_folder_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = class_folders(tmp_path / "far", {"cat": 8, "dog": 8})
    local = type(fsspec.filesystem("file"))
    ls = local.ls

    def fails(self: object, path: str, detail: bool = False, **options: object) -> object:
        if path.endswith("dog"):
            raise PermissionError("not this one")
        return ls(self, path, detail, **options)

    monkeypatch.setattr(local, "ls", fails)
    with pytest.raises(UserError, match="can't be read: PermissionError: not this one"):
        local_copy(folder.as_uri())


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://me:pw@bucket/set", "it holds a password"),
        ("zip://::ftp://me:pw@host/a.zip", "it holds a password"),
        ("https://host/a.npz?token=pw", "the part behind ? may be a secret"),
    ],
)
def test_an_address_with_a_secret_is_refused_and_the_secret_not_shown(address: str, reason: str) -> None:
    for refused in (
        lambda: from_tree({"data": {"source": address}}, where=f"run {address}"),
        lambda: from_tree({"generator": {"source": address}}, where="a"),
        lambda: from_tree({}, [f"data.source={address}"], where="a"),
        lambda: local_copy(address),
    ):
        with pytest.raises(UserError) as caught:
            refused()
        assert reason in str(caught.value)
        assert "pw" not in str(caught.value)


def test_errors_notes_and_rejected_images_name_the_address(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set", {"cat": 8, "dog": 8})
    (folder / "dog" / "001.png").write_bytes(b"no image")
    address = put(folder, "memory://bucket/set")
    with pytest.raises(UserError, match=r"memory://bucket/set/dog/001.png") as caught:
        content(address)
    assert str(tmp_path) not in str(caught.value)
    splits = load(DataSettings(source=address, val_size=4, skip_bad=True))
    assert [image.path for image in splits.rejected] == ["memory://bucket/set/dog/001.png"]
    fs = fsspec.filesystem("memory")
    fs.mv("/bucket/set/dog", "/bucket/set/train", recursive=True)
    with pytest.raises(UserError, match=r"^memory://bucket/set"):
        content("memory://bucket/set", split_folders=True)


def test_inside_a_block_the_other_side_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = put(class_folders(tmp_path / "set", {"cat": 20, "dog": 20}), "memory://bucket/set")
    asked: list[str] = []
    monkeypatch.setattr(remote, "list_files", lambda *them: asked.append(them[2]) or remote_files.list_files(*them))
    looked = look(address, {})
    assert asked == [address]
    assert looked.settings.source == address
    assert dataclasses.asdict(looked)["settings"].source == address
    look(address, {})
    assert asked == [address, address]
    with at_hand(str(tmp_path)) as local:
        assert local == str(tmp_path)


def test_ready_images_of_a_generator_may_be_at_an_address(tmp_path: Path) -> None:
    path = class_folders(tmp_path / "fakes", {"cat": 4, "dog": 4})
    task = Classification(("cat", "dog"))
    own = open_source(str(path), task, 3, (16, 16))
    far = open_source(put(path, "memory://bucket/fakes"), task, 3, (16, 16))
    assert far.content_key == own.content_key  # type: ignore[attr-defined]
    with pytest.raises(
        UserError, match=r"generator.source 'memory://bucket/fakes/cat/000.png' is a file of another kind"
    ):
        open_source("memory://bucket/fakes/cat/000.png", task, 3, (16, 16))


def test_a_zip_file_is_a_folder_too(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set", {"cat": 8, "dog": 8})
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    put(tmp_path / "set.zip", "memory://bucket/set.zip")
    assert content("zip://::memory://bucket/set.zip") == content(folder)


class Shown(Progress):
    """What was shown of the copy."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, float]] = []
        self.done: list[float] = []

    def bar(self, title: str, total: float):  # type: ignore[no-untyped-def]
        self.bars.append((title, total))
        own = Bar()
        own.to = lambda done, note="": self.done.append(done)  # type: ignore[method-assign]
        return remote.contextlib.nullcontext(own)


def test_the_copy_shows_how_far_it_is(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set", {"cat": 3})
    shown = Shown()
    local_copy(put(folder, "memory://bucket/set"), shown)
    size = sum(path.stat().st_size for path in folder.rglob("*.png")) / 1e6
    assert shown.bars == [("copy memory://bucket/set (MB)", pytest.approx(size))]
    assert shown.done == sorted(shown.done)
    assert shown.done[-1] == pytest.approx(size)


def test_a_file_of_a_web_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    path, _ = npz(tmp_path / "set")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begin = f"http://127.0.0.1:{server.server_port}"
        assert content(f"{begin}/set.npz") == content(path)
        with pytest.raises(UserError, match="can't be read: ClientResponseError: 404, message='File not found'"):
            content(f"{begin}/gone.npz")
        with pytest.raises(UserError, match="names a folder, which http has not"):
            content(f"{begin}/")
        server.shutdown()
    with pytest.raises(UserError, match=r"can't be read: Client\w+: .*; an earlier copy is "):
        content(f"{begin}/set.npz")
