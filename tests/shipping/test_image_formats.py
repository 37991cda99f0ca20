"""The layouts of exported images: what is in the files, that they are read back as they were, and little memory."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.progress import Bar
from cgankd.data import arrow_tables, sources
from cgankd.data.imageset import ImageSet
from cgankd.shipping import image_columns, image_formats
from cgankd.shipping.image_columns import LeavingImages, leaving
from cgankd.tasks import Classification, Regression, Task

NAMES = ("ankle boot", "bag", "7")
SOURCES = {"imagefolder": "", "parquet": "", "webdataset": "", "hdf5": "images.h5"}
NEEDS = {"parquet": "pyarrow", "webdataset": "webdataset"}


def fakes(count: int = 30, scalar: bool = False, channels: int = 1, size: int = 16) -> tuple[ImageSet, Task]:
    """Noise with the columns of the synthesis: predictions one class (or a quarter of the range) above the label."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, size, size), generator=rng, dtype=torch.uint8)
    task: Task = Regression(-2.0, 2.0, "degrees") if scalar else Classification(NAMES)
    labels = torch.linspace(-2.0, 1.0, count) if scalar else torch.arange(count) % 3
    known = {"prediction": labels + 1 if scalar else (labels + 1) % 3, "error": torch.rand(count, generator=rng)}
    known["ratio"] = torch.rand(count, generator=rng)
    return ImageSet(images, labels, known), task


def export(to: str, folder: Path, count: int = 30, scalar: bool = False, **more: int) -> LeavingImages:
    requested, task = fakes(count, scalar, **more)
    relabelled = ImageSet(requested.images, requested.columns["prediction"], requested.columns) if scalar else requested
    columns = leaving(requested, relabelled, task, replaced=scalar, subsampled=not scalar)
    folder.mkdir(parents=True)
    image_formats.WRITERS[to](columns, folder, Bar())
    return columns


@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize("to", list(image_formats.WRITERS))
def test_what_leaves_is_read_back_as_a_source_with_the_same_pixels_and_labels(
    to: str, scalar: bool, tmp_path: Path
) -> None:
    pytest.importorskip(NEEDS.get(to, "numpy"))
    exported = export(to, tmp_path / "out", scalar=scalar, channels=3 if scalar else 1)
    task = exported.task
    whole = sources.load_whole(str(tmp_path / "out" / SOURCES[to]), task, 3 if scalar else 1, (16, 16), "source")
    assert torch.equal(whole.images, exported.images.images)
    assert torch.equal(whole.labels, exported.images.labels)


@pytest.mark.parametrize("to", ["imagefolder", "parquet", "webdataset"])
def test_ready_images_have_their_labels_in_the_run_s_column_where_they_have_it(to: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(to, "numpy"))
    exported = export(to, tmp_path / "out", scalar=True)
    of = (str(tmp_path / "out"), exported.task, 1, (16, 16), "source")
    asked = torch.from_numpy(exported.columns["requested_label"].values)
    assert torch.equal(sources.load_whole(*of, "requested_label").labels, asked)
    assert torch.equal(sources.load_whole(*of, "angle").labels, exported.images.labels)


def test_image_folder_has_a_table_of_everything_known(tmp_path: Path) -> None:
    exported = export("imagefolder", tmp_path / "out", count=1002)
    rows = list(csv.DictReader((tmp_path / "out/train/metadata.csv").open()))
    assert list(rows[0]) == ["file_name", "label", "teacher_prediction", "teacher_error", "density_ratio"]
    assert (rows[1001]["file_name"], rows[1001]["label"]) == ("001/001001.png", NAMES[1001 % 3])
    assert rows[1001]["teacher_prediction"] == NAMES[1002 % 3]
    assert float(rows[7]["density_ratio"]) == pytest.approx(float(exported.images.columns["ratio"][7]), rel=1e-6)
    pixels = np.asarray(Image.open(tmp_path / "out/train/001/001001.png"))
    assert (pixels == exported.images.images[1001, 0].numpy()).all()


def test_replaced_labels_leave_beside_the_requested_ones(tmp_path: Path) -> None:
    export("imagefolder", tmp_path / "out", scalar=True)
    rows = list(csv.DictReader((tmp_path / "out/train/metadata.csv").open()))
    assert [float(rows[0][name]) for name in ("label", "requested_label", "teacher_prediction")] == [-1.0, -2.0, -1.0]
    assert "density_ratio" not in rows[0]  # nothing was subsampled, so no ratio was computed


def test_parquet_describes_itself_to_datasets_and_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(image_formats, "SHARD_BYTES", 12 * 256)
    exported = export("parquet", tmp_path / "out")
    files = sorted((tmp_path / "out/data").iterdir())
    assert [file.name for file in files] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    tables = [parquet.read_table(file) for file in files]
    assert [table.num_rows for table in tables] == [12, 12, 6]
    features = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": list(NAMES), "_type": "ClassLabel"}
    last = tables[2].to_pylist()[-1]
    assert last["label"] == 29 % 3
    pixels = np.asarray(Image.open(io.BytesIO(last["image"]["bytes"])))
    assert (pixels == exported.images.images[29, 0].numpy()).all()


def test_parquet_is_loaded_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    exported = export("parquet", tmp_path / "out")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out/data/*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.features["label"].int2str(loaded[4]["label"]) == NAMES[1]
    assert (np.asarray(loaded[4]["image"]) == exported.images.images[4, 0].numpy()).all()


def test_a_shard_has_10_000_images_or_100_megabytes_of_pixels() -> None:
    def shards(count: int, size: int) -> list[int]:
        images = ImageSet(
            torch.zeros(1, 3, size, size, dtype=torch.uint8).expand(count, -1, -1, -1), torch.zeros(count)
        )
        return [len(rows) for rows in image_formats._shards(LeavingImages(images, {}, Regression(0.0, 1.0)))]

    assert shards(25_000, 32) == [10_000, 10_000, 5_000]
    assert shards(5_000, 128) == [2_034, 2_034, 932]  # 128 * 128 * 3 = 49,152 bytes each


def test_image_folder_and_a_folder_of_parquet_are_loaded_by_datasets_with_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(image_formats, "SHARD_IMAGES", 12)
    pixels = export("imagefolder", tmp_path / "folder").images.images
    export("parquet", tmp_path / "parquet")
    for calls in (["imagefolder"], [str(tmp_path / "parquet")]):
        data = None if calls != ["imagefolder"] else str(tmp_path / "folder")
        loaded = datasets.load_dataset(*calls, data_dir=data, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == 30
        assert (np.asarray(loaded[29]["image"]) == pixels[29, 0].numpy()).all()


def test_webdataset_is_read_by_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    webdataset = pytest.importorskip("webdataset")
    monkeypatch.setattr(image_formats, "SHARD_IMAGES", 12)
    exported = export("webdataset", tmp_path / "out")
    urls = sorted(map(str, (tmp_path / "out/data").iterdir()))
    assert [Path(url).name for url in urls] == ["train-00000.tar", "train-00001.tar", "train-00002.tar"]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("png", "cls", "json"))
    assert len(samples) == 30
    picture, number, fields = samples[29]
    assert (picture[..., 0] == exported.images.images[29, 0].numpy()).all()
    assert (number, fields["label"], fields["teacher_prediction"]) == (2, "7", NAMES[0])
    assert fields["density_ratio"] == float(exported.images.columns["ratio"][29])


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.json": b"{}"}, "sample a: holds no image; allowed: a file that ends in .png"),
        ({"a.png": b"x", "a.json": b"{"}, "sample a: .*allowed: JSON in .json"),
        ({"a.png": b"x", "a.cls": b"cat"}, "sample a: .*a whole number in .cls"),
        ({"a.png": b"x", "a.json": b"[1]"}, "sample a: its .json holds list"),
        ({}, "holds no sample"),
    ],
)
def test_webdataset_that_cannot_be_used_is_refused_with_its_sample(
    files: dict[str, bytes], sentence: str, tmp_path: Path
) -> None:
    pytest.importorskip("webdataset")
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    with pytest.raises(UserError, match=sentence):
        sources.load_whole(str(path), Classification(("1", "2")), 1, (16, 16), "source")
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=r"train-0\.tar: not readable as a tar file of samples"):
        sources.load_whole(str(path), Classification(("1", "2")), 1, (16, 16), "source")


def test_a_tar_whose_names_lead_out_of_the_folder_writes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "set.tar"
    image = image_formats.png(np.zeros((16, 16, 1), np.uint8))
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("../a.png")
        entry.size = len(image)
        tar.addfile(entry, io.BytesIO(image))
    with pytest.raises(UserError, match=r"set\.tar: has no column 'label'.*columns found: image"):
        sources.load_whole(str(path), Classification(("1", "2")), 1, (16, 16), "source")
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "set.tar"]


def test_hdf5_holds_arrays_and_what_they_mean(tmp_path: Path) -> None:
    exported = export("hdf5", tmp_path / "out", scalar=True)
    with h5py.File(tmp_path / "out/images.h5") as file:
        assert file["images"].shape == (30, 16, 16, 1)
        assert (file["labels"][:] == exported.images.labels.numpy()).all()
        assert file["requested_label"][0] == -2.0
        assert json.loads(file.attrs["task"])["unit"] == "degrees"
        assert "share of the label range" in file["teacher_error"].attrs["meaning"]


def test_probabilities_leave_as_a_column_for_each_class(tmp_path: Path) -> None:
    requested, task = fakes(6)
    known = {**requested.columns, "probabilities": torch.tensor([[0.5, 0.25, 0.25]] * 6)}
    images = ImageSet(requested.images, requested.labels, known)
    columns = leaving(images, images, task, replaced=False, subsampled=True)
    image_formats.write_image_folder(columns, tmp_path, Bar())
    (row, *_) = csv.DictReader((tmp_path / "train/metadata.csv").open())
    assert [row[f"teacher_probability_{name}"] for name in NAMES] == ["0.5", "0.25", "0.25"]


@pytest.mark.parametrize("to", list(image_formats.WRITERS))
def test_memory_does_not_grow_with_the_number_of_images(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(NEEDS.get(to, "numpy"))
    monkeypatch.setattr(image_columns, "BLOCK", 20)

    def peak(count: int) -> int:
        tracemalloc.start()
        export(to, tmp_path / str(count), count=count, size=64)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(20)  # what is imported or compiled once
    assert peak(400) < peak(40) + 100_000  # the 360 further images have 1.5 million pixels


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"image": [b"x"], "label": [None]}, "column 'label' holds no label in any row"),
        (
            {"image": [b"x"], "target": [1]},
            "has no column 'label'.*columns found: image, target",
        ),
        ({"pixels": [1], "label": [1]}, "which column holds the images"),
        ({"image": [{"bytes": None, "path": "a.png"}] * 2, "label": [1, 2]}, r"row 0 \(holds no image\)"),
        (
            {"image": [b"x", b"y"], "label": [1, 2]},
            r"row 0 \(not readable as an image \(cannot identify image file\)\)",
        ),
        ({"image": [b"x"], "label": [[1, 2]]}, "column 'label' holds list"),
    ],
)
def test_parquet_that_cannot_be_used_is_refused_with_its_row(
    columns: dict[str, list[object]], sentence: str, tmp_path: Path
) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=sentence):
        sources.load_whole(str(tmp_path / "a.parquet"), Classification(("1", "2")), 1, (16, 16), "source")


def test_splits_of_parquet_are_read_from_the_names_of_the_files(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images, _ = fakes(40)
    files = [image_formats.png(image.permute(1, 2, 0).numpy()) for image in images.images]
    for name, rows in (("train-00000-of-00001", slice(0, 30)), ("test-00000-of-00001", slice(30, 40))):
        labels = ["cat" if row % 2 else "dog" for row in range(40)][rows]
        parquet.write_table(pyarrow.table({"img": files[rows], "label": labels}), tmp_path / f"{name}.parquet")
    splits = sources.load(DataSettings(source=str(tmp_path), val_size=4))
    assert torch.equal(splits.test.images, images.images[30:])
    assert splits.task == Classification(("cat", "dog"))
    assert len(splits.pool) == 26
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"broken.parquet: not readable as Parquet"):
        arrow_tables.read(tmp_path / "broken.parquet")
