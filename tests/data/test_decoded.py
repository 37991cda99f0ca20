"""Large sets are decoded once into a file: the same images as in memory, found again, and never half of them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pictures import class_folders, metadata, noise, write_png
from PIL import Image

from cgankd.config.settings import AugmentSettings, DataSettings
from cgankd.core.hashing import describe
from cgankd.core.mapped_rows import MappedRows
from cgankd.core.progress import Progress
from cgankd.data import decoded, image_files, sources
from cgankd.data.batches import Batches
from cgankd.data.imageset import Splits, TrainingImages, contents

PARTS = ("train", "pool", "val", "test")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of decoded images; all sets are large."""
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(decoded, "MOST_IN_MEMORY", 0)
    return tmp_path / "data" / "decoded"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are opened, for their header or for their pixels."""
    opened, whole = list[str](), image_files._opened

    def counted(path: Any) -> Any:
        opened.append(Path(str(path)).name)
        return whole(path)

    monkeypatch.setattr(image_files, "_opened", counted)
    return opened


def load(source: Path, **settings: object) -> Splits:
    return sources.load(DataSettings.model_validate({"source": str(source), **settings}))


def in_memory(monkeypatch: pytest.MonkeyPatch, source: Path, **settings: object) -> Splits:
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "MOST_IN_MEMORY", 10**9)
        splits = load(source, **settings)
    assert isinstance(splits.pool.images, torch.Tensor)
    return splits


def folder(path: Path) -> Path:
    return class_folders(path, {"a": 14, "b": 16})


def table(path: Path) -> Path:
    return metadata(path, [(f"{row}.png", row / 7) for row in range(30)])


def deep(path: Path) -> Path:
    """Images of 16 bits, of which 12 are used."""
    for row in range(30):
        home = path / "ab"[row % 2]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(row, channels=1).astype(np.uint16) * 16).save(home / f"{row}.png")
    return path


def arrays(path: Path) -> dict[str, Any]:
    path.mkdir()
    pixels = np.stack([noise(row) for row in range(40)])
    labels = np.arange(40) % 2
    return {"x_train": pixels[:30], "y_train": labels[:30], "x_test": pixels[30:], "y_test": labels[30:]}


def npz(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), **arrays(path))
    return path.with_suffix(".npz")


def h5(path: Path) -> Path:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, values in arrays(path).items():
            file[name] = values
    return path.with_suffix(".h5")


def encoded(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(seed)).save(stream, format="PNG")
    return stream.getvalue()


def parquet(path: Path) -> Path:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.mkdir()
    cells = [{"bytes": encoded(row), "path": None} for row in range(30)]
    columns = pyarrow.table({"image": cells, "label": [row % 2 for row in range(30)]})
    files.write_table(columns, path / "set.parquet", row_group_size=7)
    return path / "set.parquet"


def tar(path: Path) -> Path:
    pytest.importorskip("webdataset")
    pytest.importorskip("pyarrow")
    with tarfile.open(path.with_suffix(".tar"), "w") as file:
        for row in range(30):
            for ending, content in (("png", encoded(row)), ("cls", str(row % 2).encode())):
                entry = tarfile.TarInfo(f"{row:06}.{ending}")
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))
    return path.with_suffix(".tar")


@pytest.mark.parametrize("make", [folder, table, deep, npz, h5, parquet, tar])
def test_all_is_as_in_memory(make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "set")
    settings = {"val_size": 4, "train_size": 8, "seed": 3}
    expected = in_memory(monkeypatch, source, **settings)
    for start in ("first", "second"):
        splits = load(source, **settings)
        assert splits.notes == expected.notes, start
        for name in PARTS:
            own, other = getattr(splits, name), getattr(expected, name)
            assert isinstance(own.images, MappedRows)
            assert torch.equal(own.images[:], other.images)
            assert torch.equal(own.labels, other.labels)
            assert own.content_key == other.content_key
            assert contents(own.images) == contents(other.images)
            assert all(map(torch.equal, own.pixel_statistics, other.pixel_statistics))
        assert splits.unlabelled.content_key == expected.unlabelled.content_key
        assert len(splits.unlabelled) == len(splits.pool) - 8
        assert describe(splits.pool.images) == describe(expected.pool.images)


def test_batches_are_those_of_images_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "set")
    both = [load(source, train_size=10), in_memory(monkeypatch, source, train_size=10)]
    mapped, known = (
        Batches(TrainingImages(one.train), one.task, 4, AugmentSettings(), seed=1, device=torch.device("cpu"))
        for one in both
    )
    for step in range(7):
        assert torch.equal(mapped.at(step).images, known.at(step).images)
    assert mapped.key(0) == known.key(0)


def test_a_second_start_looks_at_no_image(tmp_path: Path, looks: list[str]) -> None:
    source = folder(tmp_path / "set")
    load(source)
    assert len(looks) == 2 * 30  # a header and the pixels of each
    looks.clear()
    counts = list[tuple[int, int]]()
    sources.load(DataSettings(source=str(source), seed=9), lambda done, total: counts.append((done, total)))
    assert looks == []
    assert counts[-1] == (30, 30)


def test_a_second_start_reads_no_pixels_for_keys_and_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values() -> list[Any]:
        splits = load(source, train_size=9)
        keys = [getattr(splits, name).content_key for name in PARTS] + [splits.unlabelled.content_key]
        return [*keys, splits.notes, [part.tolist() for part in splits.train.pixel_statistics]]

    source = folder(tmp_path / "set")
    first, whole = values(), MappedRows.__getitem__
    monkeypatch.setattr(MappedRows, "split", None)
    monkeypatch.setattr(MappedRows, "__getitem__", lambda self, which: whole(self, slice(0)))
    assert values() == first


def test_images_are_counted_once_while_they_are_decoded(tmp_path: Path) -> None:
    counts = list[tuple[int, int]]()
    source = folder(tmp_path / "set")
    sources.load(DataSettings(source=str(source)), lambda done, total: counts.append((done, total)))
    assert counts[-1] == (30, 30)


@pytest.mark.parametrize("change", ["content", "time", "one more"])
def test_changed_files_are_decoded_again(
    change: str, tmp_path: Path, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "set")
    load(source)
    path = source / "a" / "003.png"
    if change == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    else:
        write_png(path if change == "content" else source / "a" / "new.png", 777)
    looks.clear()
    found = load(source)
    assert path.name in looks
    assert found.pool.content_key == in_memory(monkeypatch, source).pool.content_key


def test_files_that_changed_places_with_their_times_are_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mv, cp -p and rsync keep the time of change, and uncompressed images of one size have equally many bytes."""
    source = folder(tmp_path / "set")
    first, second = source / "a" / "000.bmp", source / "a" / "001.bmp"
    for seed, path in enumerate((first, second)):
        Image.fromarray(noise(900 + seed)).save(path)
        os.utime(path, ns=(0, 10**18))
    load(source)
    first.rename(tmp_path / "other")
    second.rename(first)
    (tmp_path / "other").rename(second)
    assert load(source).pool.content_key == in_memory(monkeypatch, source).pool.content_key


def test_links_that_changed_places_are_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written at once may have the same times, also that of the last change of their status."""
    source, pool = folder(tmp_path / "set"), tmp_path / "pool"
    pool.mkdir()
    links = [source / "a" / "000.bmp", source / "b" / "001.bmp"]
    for seed, link in enumerate(links):
        Image.fromarray(noise(900 + seed)).save(pool / link.name)
        link.symlink_to(pool / link.name)
    whole = Path.stat

    def at_once(path: Path, **how: bool) -> Any:
        found = whole(path, **how)
        return SimpleNamespace(
            **{name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
            | ({"st_mtime_ns": 1, "st_ctime_ns": 1} if path.suffix == ".bmp" else {})
        )

    monkeypatch.setattr(Path, "stat", at_once)
    load(source)
    for link, other in zip(links, reversed(links), strict=True):
        link.unlink()
        link.symlink_to(pool / other.name)
    assert load(source).pool.content_key == in_memory(monkeypatch, source).pool.content_key


@pytest.mark.parametrize("damage", ["cut", "changed", "without its mark", "gone"])
def test_a_damaged_file_is_written_again(damage: str, tmp_path: Path, home: Path, looks: list[str]) -> None:
    source = folder(tmp_path / "set")
    key = load(source).pool.content_key
    [path] = home.glob("*/*.u8")
    content = path.read_bytes()
    [known] = home.glob("*/*.known")
    for kept in known.iterdir():
        kept.write_bytes(b"of another file")
    if damage == "cut":
        os.truncate(path, len(content) - 100)
    elif damage == "changed":
        path.write_bytes(b"\0" * 1000 + content[1000:])
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))
    elif damage == "gone":
        path.unlink()
    else:
        path.with_suffix(".json").unlink()
    looks.clear()
    assert load(source).pool.content_key == key
    assert len(looks) == 30
    assert path.read_bytes() == content


def test_of_decoding_that_was_stopped_nothing_looks_finished(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, whole, left = folder(tmp_path / "set"), image_files._decoded, [20]

    def stopping(*arguments: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(image_files, "_decoded", stopping)
        with pytest.raises(KeyboardInterrupt):
            load(source)
    assert not [path for path in home.rglob("*") if path.suffix in {".u8", ".json", ".part"}]
    assert load(source).pool.content_key == in_memory(monkeypatch, source).pool.content_key


SLOW = """
import sys, time
from cgankd.config.settings import DataSettings
from cgankd.data import decoded, sources
decoded.MOST_IN_MEMORY = 0
whole = decoded.Decoded._decode
def slow(*arguments):
    print("decodes", flush=True)
    time.sleep(2)
    whole(*arguments)
decoded.Decoded._decode = slow
print(sources.load(DataSettings(source=sys.argv[1])).pool.content_key)
"""


@pytest.mark.long
def test_of_two_processes_one_decodes(tmp_path: Path) -> None:
    source = folder(tmp_path / "set")
    words = [sys.executable, "-c", SLOW, str(source)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [line for process in both for line in process.communicate()[0].split()]
    assert [process.returncode for process in both] == [0, 0]
    assert lines.count("decodes") == 1
    assert len(set(lines)) == 2  # the same key of both


def test_bad_images_are_found_again_without_decoding_the_others(
    tmp_path: Path, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "set")
    (source / "a" / "bad.png").write_bytes(encoded(5)[:200])
    (source / "b" / "gone.png").symlink_to("nowhere.png")
    expected = in_memory(monkeypatch, source, skip_bad=True)
    assert len(expected.rejected) == 2
    load(source, skip_bad=True)
    looks.clear()
    again = load(source, skip_bad=True)
    assert set(looks) == {"bad.png", "gone.png"}
    assert again.rejected == expected.rejected
    assert again.notes == expected.notes
    assert again.pool.content_key == expected.pool.content_key
    with pytest.raises(sources.UserError, match=r"2 of 32 images can't be used"):
        load(source)


def test_an_image_that_became_readable_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a disk did not answer: the file has not changed."""
    source, whole = folder(tmp_path / "set"), image_files._opened

    def failing(path: Path) -> Any:
        if path.name == "003.png":
            raise image_files.Unusable(path, "Input/output error", "allowed: files")
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(image_files, "_opened", failing)
        assert len(load(source, skip_bad=True).rejected) == 2
    assert load(source, skip_bad=True).rejected == ()


class Said(Progress):
    def __init__(self) -> None:
        self.lines = list[str]()

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_where_no_file_can_be_written_images_stay_in_memory(tmp_path: Path, home: Path) -> None:
    source, said = folder(tmp_path / "set"), Said()
    home.parent.write_text("not a folder")
    splits = sources.load(DataSettings(source=str(source)), progress=said)
    assert isinstance(splits.pool.images, torch.Tensor)
    [line] = said.lines
    assert line.startswith("images are kept in memory, 0 MB, because they can't be written to ")
    assert "CGANKD_DATA sets another folder" in line


def test_another_user_s_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, said = folder(tmp_path / "set"), Said()
    key = load(source).pool.content_key

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cgankd.data.decoded.os.utime", refused)
    splits = sources.load(DataSettings(source=str(source)), progress=said)
    assert isinstance(splits.pool.images, MappedRows)
    assert splits.pool.content_key == key
    assert said.lines == []


def test_the_file_is_named_once(tmp_path: Path, home: Path) -> None:
    source, said = folder(tmp_path / "set"), Said()
    for _ in range(2):
        sources.load(DataSettings(source=str(source)), progress=said)
    [path] = home.glob("*/*.u8")
    assert said.lines == [f"images decoded into {path}, 0 MB, where later starts find them"]


def test_small_sets_stay_in_memory(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory(monkeypatch, folder(tmp_path / "set"), skip_bad=True)
    assert not home.exists()


def test_folders_that_were_not_used_for_long_go(tmp_path: Path, home: Path) -> None:
    load(folder(tmp_path / "old"))
    load(class_folders(tmp_path / "new", {"a": 10, "b": 10}, seed=70))
    assert len(list(home.iterdir())) == 2
    old = next(home.iterdir())
    os.utime(old, (0, 0))
    shutil.copytree(tmp_path / "old", tmp_path / "third")
    load(tmp_path / "third")
    assert not old.exists()
    assert len(list(home.iterdir())) == 2


def test_parts_of_rows_are_those_of_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "set")
    images, known = load(source).pool.images, in_memory(monkeypatch, source).pool.images
    mask = torch.arange(len(known)) % 3 == 0
    for which in (3, -1, slice(2, 9, 3), torch.tensor([7, 1, 1]), torch.tensor(4), mask, (2, 0), (slice(4), 1, 2)):
        assert torch.equal(images[which], known[which])
    assert torch.equal(torch.cat(list(images.split(4))), known)
    assert torch.equal(torch.stack(list(images)), known)
    assert torch.equal(images.take(mask).take(slice(1, 3))[:], known[mask][1:3])
