"""Parquet files and data sets of the hub: read as the same images in a folder are; odd ones are named."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import arrow_tables, sources
from cgankd.data.file_names import file_names
from cgankd.data.imageset import Splits
from cgankd.tasks import Classification

datasets = pytest.importorskip("datasets")


def encoded(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 18), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def hub_table(count: int, first: int = 0, **columns: list) -> pa.Table:
    """As the hub stores it: images as {bytes, path}, two classes by number, their names in the metadata."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    table = pa.table(
        {
            "image": [{"bytes": encoded(first + n), "path": f"{first + n}.png"} for n in range(count)],
            "label": [n % 2 for n in range(count)],
            **columns,
        }
    )
    metadata = {b"huggingface": f'{{"info": {{"features": {_json(features)}}}}}'.encode()}
    return table.replace_schema_metadata(metadata)


def _json(features: object) -> str:
    import json

    return json.dumps(features.to_dict())  # type: ignore[attr-defined]


def write(path: Path, table: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def load(source: Path | str, **settings: object) -> Splits:
    return sources.load(DataSettings.model_validate({"source": str(source), **settings}))


def contents(splits: Splits) -> dict[bytes, int]:
    """Pixels -> label, of all splits."""
    return {
        image.numpy().tobytes(): int(label)
        for part in (splits.pool, splits.val, splits.test)
        for image, label in zip(part.images, part.labels, strict=True)
    }


def test_a_file_is_read_as_the_same_images_in_a_folder(tmp_path: Path) -> None:
    splits = load(write(tmp_path / "pets.parquet", hub_table(60)))
    for n in range(60):
        path = tmp_path / "folder" / ("dog" if n % 2 else "cat") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(n))
    other = load(tmp_path / "folder")
    assert splits.task == other.task == Classification(("cat", "dog"))
    assert contents(splits) == contents(other)
    assert splits.name == "pets"
    assert splits.train.images.shape[1:] == (1, 16, 18)


@pytest.mark.parametrize("layout", ["flat", "data", "by folder"])
def test_shards_name_their_splits(layout: str, tmp_path: Path) -> None:
    names = {
        "flat": ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001-0a1b2c3d4e5f6789"],
        "data": ["data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"],
        "by folder": ["default/train/0000", "default/train/0001", "default/test/0000"],
    }[layout]
    for name, count, first in zip(names, (20, 25, 10), (0, 100, 200), strict=True):
        write(tmp_path / "set" / f"{name}.parquet", hub_table(count, first))
    splits = load(tmp_path / "set")
    assert (len(splits.train) + len(splits.val), len(splits.test)) == (45, 10)
    tests = {np.asarray(Image.open(io.BytesIO(encoded(200 + n)))).tobytes() for n in range(10)}
    assert {image.numpy().tobytes() for image in splits.test.images} == tests


def test_groups_of_whole_numbers_and_decimals_are_the_same(tmp_path: Path) -> None:
    for shard, kind in enumerate((int, float)):
        table = hub_table(40, first=40 * shard, drive=[kind(n // 4) for n in range(40)])
        write(tmp_path / f"train-{shard:05}-of-00002.parquet", table)
    splits = load(tmp_path, group_column="drive")
    groups = [set(part.columns["group"].tolist()) for part in (splits.pool, splits.val, splits.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10


def test_scalars_groups_other_columns_and_a_column_of_splits(tmp_path: Path) -> None:
    table = hub_table(
        80, angle=[n * 1.25 for n in range(80)], drive=[n // 8 for n in range(80)],
        split=["train"] * 64 + ["Test"] * 16, note=["x"] * 80,
    )  # fmt: skip
    path = write(tmp_path / "set.parquet", table)
    splits = load(path, label_column="angle", group_column="drive", circular=100)
    assert splits.task.continuous
    assert len(splits.test) == 16
    assert sorted(splits.test.labels.tolist()) == [80 + 1.25 * n for n in range(16)]
    assert not set(splits.train.columns["group"].tolist()) & set(splits.val.columns["group"].tolist())
    assert "columns that were not used: label, note" in splits.notes


def test_a_test_split_without_labels_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.parquet", hub_table(40))
    hidden = hub_table(12, 500).set_column(1, "label", pa.array([-1] * 12))
    write(tmp_path / "set" / "test.parquet", hidden)
    splits = load(tmp_path / "set")
    assert f"without labels, and left out: {tmp_path / 'set' / 'test.parquet'}" in splits.notes
    assert "the source has no test split, so 8 images were drawn for it" in splits.notes


def broken(table: pa.Table, row: int, value: object) -> pa.Table:
    images = table.column("image").to_pylist()
    images[row] = value
    return table.set_column(0, "image", pa.array(images, table.schema.field("image").type))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (hub_table(20).drop_columns(["label"]), r"a.parquet: has no column 'label' \(data.label_column sets another\)"),
        (hub_table(20).drop_columns(["image"]), "a.parquet: which column holds the images"),
        (
            hub_table(20, label=[n % 2 for n in range(19)] + [None]),
            "row 19: the label is empty; allowed: .*; remove entries without a label",
        ),
        (hub_table(20, label=[0, 1] * 9 + [0, 5]), "a.parquet, row 19: label 5 is outside class_names"),
        (hub_table(20, label=[[1]] * 20), "column 'label' holds list"),
        (
            broken(hub_table(20), 7, {"bytes": b"nothing", "path": None}),
            "a.parquet, row 7: not readable as an image",
        ),
        (broken(hub_table(20), 5, {"bytes": None, "path": "/etc/x.png"}), "a.parquet, row 5: holds no image"),
        (
            broken(hub_table(20), 3, None),
            "a.parquet, row 3: holds no image; allowed: the bytes of an image in each row",
        ),
    ],
)
def test_what_can_not_be_used_is_named(table: pa.Table, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(write(tmp_path / "a.parquet", table))


def test_a_file_of_another_kind_and_unclear_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_text("not a table")
    with pytest.raises(UserError, match=r"b.parquet: not readable as Parquet"):
        load(tmp_path / "b.parquet")
    for name in ("one/train.parquet", "two/train.parquet"):
        write(tmp_path / "configs" / name, hub_table(20))
    with pytest.raises(UserError, match="has Parquet files in several folders"):
        load(tmp_path / "configs")
    write(tmp_path / "odd" / "train.parquet", hub_table(20))
    write(tmp_path / "odd" / "more.parquet", hub_table(20))
    with pytest.raises(UserError, match=r"more.parquet: its name is no split's"):
        load(tmp_path / "odd")


def test_metadata_parquet_beside_images(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"{n}.png").write_bytes(encoded(n))
    names = [f"{n}.png" for n in range(40)]
    write(tmp_path / "metadata.parquet", pa.table({"file_name": names, "label": [n / 8 for n in range(40)]}))
    splits = load(tmp_path)
    assert splits.task.continuous
    assert sorted(torch.cat([splits.pool.labels, splits.val.labels, splits.test.labels]).tolist()) == [
        n / 8 for n in range(40)
    ]
    write(tmp_path / "metadata.parquet", pa.table({"file_name": [*names[:39], "40.png"], "label": [1.5] * 40}))
    with pytest.raises(UserError, match=r"metadata.parquet, row 39: file '40.png' is not in"):
        load(tmp_path)


# --- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the hub's place: owner/name is ``owner/name`` below it, read by the library itself."""
    real = datasets.load_dataset

    def load_dataset(name: str, config: str | None, revision: str | None) -> object:
        folder = tmp_path / "hub" / name
        if not folder.is_dir():
            raise ConnectionError("no network\nhere")
        return real(str(folder), config, cache_dir=str(tmp_path / "cache" / (revision or "main")))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    datasets.disable_progress_bars()
    return tmp_path / "hub"


def test_a_set_of_the_hub_is_read_as_its_files_are(hub: Path) -> None:
    write(hub / "me" / "pets" / "data" / "train-00000-of-00001.parquet", hub_table(40))
    write(hub / "me" / "pets" / "data" / "test-00000-of-00001.parquet", hub_table(10, 300))
    splits = load("hf://me/pets@v1")
    assert splits.task == Classification(("cat", "dog"))
    assert len(splits.test) == 10
    assert contents(splits) == contents(load(hub / "me" / "pets"))


def test_a_set_of_the_hub_without_labels(hub: Path) -> None:
    write(hub / "me" / "pets" / "train.parquet", hub_table(40))
    write(hub / "me" / "more" / "train.parquet", hub_table(9, 100).drop_columns(["label"]))
    write(hub / "me" / "more" / "test.parquet", hub_table(5, 198).drop_columns(["label"]))
    splits = load(hub / "me" / "pets", unlabelled="hf://me/more")
    assert splits.unlabelled.images.shape == (14, 1, 16, 18)
    assert "14 unlabelled images of hf://me/more" in splits.notes
    with pytest.raises(UserError, match=r"data.unlabelled 'hf://me/gone' can't be read: ConnectionError: no network"):
        load(hub / "me" / "pets", unlabelled="hf://me/gone")


def test_an_image_folder_of_the_hub(hub: Path) -> None:
    for n in range(40):
        path = hub / "me" / "angles" / "train" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(n))
    lines = ["file_name,angle", *(f"{n}.png,{n * 1.5}" for n in range(40))]
    (hub / "me" / "angles" / "train" / "metadata.csv").write_text("\n".join(lines))
    splits = load("hf://me/angles", label_column="angle")
    assert splits.task.continuous
    own = load(hub / "me" / "angles", label_column="angle")
    assert contents(splits) == contents(own)


def test_what_the_hub_can_not_give_is_a_sentence(hub: Path) -> None:
    with pytest.raises(UserError, match=r"'hf://me/gone' can't be read: ConnectionError: no network here; needed: "):
        load("hf://me/gone")
    with pytest.raises(UserError, match="is no address of a data set; allowed: hf://OWNER/NAME"):
        load("hf://me")
    with pytest.raises(UserError, match="group_pattern='a' is for a folder of image files"):
        load("hf://me/gone", group_pattern="a")


@pytest.mark.parametrize(("source", "module"), [("hf://me/pets", "datasets"), ("a.parquet", "pyarrow.parquet")])
def test_a_missing_library_is_named_with_its_extra(
    source: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.parquet", hub_table(20))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"^\S*{source} needs {module.partition('.')[0]}: pip install 'cgankd\[hub\]'"):
        load(source)  # data.unlabelled and generator.source are read by the same functions


def test_images_stay_in_the_file_until_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, groups = tmp_path / "set.parquet", list[int]()
    pq.write_table(hub_table(40), path, row_group_size=7)
    whole = arrow_tables.RowGroups._read

    def counted(self: arrow_tables.RowGroups, group: int) -> object:
        groups.append(group)
        return whole(self, group)

    monkeypatch.setattr(arrow_tables.RowGroups, "_read", counted)
    listing = arrow_tables.parquet_listing(path, [path], DataSettings(source=str(path)))
    assert groups == []
    assert sum(listing.pictures.kinds().values()) == 40
    assert sorted(groups) == list(range(6))
    content = {encoded(row) for row in range(40)}
    assert {item.open().getvalue() for item in listing.pictures.items} == content  # type: ignore[attr-defined]


def test_a_cell_has_the_name_beside_its_bytes() -> None:
    cells = pa.chunked_array([[{"bytes": b"", "path": "a/0.png"}, {"bytes": b"", "path": "/home/me/1.png"}]])
    names = [arrow_tables.Cell(cells, row, "set.tar", False, None).name for row in range(2)]
    assert names == ["set.tar, a/0.png", "set.tar, 1.png"]
    assert arrow_tables.Cell(pa.chunked_array([[b""]]), 0, "set.parquet", False, None).name == "set.parquet, row 0"


def test_test_images_of_a_file_have_the_names_beside_their_bytes(tmp_path: Path) -> None:
    rows = hub_table(20).column("image").to_pylist()
    rows[0]["path"] = None
    write(tmp_path / "test-named.parquet", pa.table({"image": rows, "label": [0, 1] * 10}))
    write(tmp_path / "train-bytes.parquet", pa.table({"image": [row["bytes"] for row in rows], "label": [0, 1] * 10}))
    named, alone = (
        arrow_tables.parquet_listing(path, [path], DataSettings(source=str(path))).pictures
        for path in sorted(tmp_path.glob("*.parquet"))
    )
    assert file_names(named, range(3), str(tmp_path)) == (
        "test-named.parquet, row 0", "test-named.parquet, 1.png", "test-named.parquet, 2.png",
    )  # fmt: skip
    assert file_names(alone, [1], str(tmp_path)) == ("train-bytes.parquet, row 1",)


@pytest.mark.parametrize(
    "labels",
    [[0, 1] * 10, [False, True] * 10, ["cat", "dog"] * 10, [n / 4 for n in range(20)]],
)
def test_rows_without_a_label_are_left_out_by_skip_bad(labels: list[object], tmp_path: Path) -> None:
    rows = hub_table(20).column("image").to_pylist()
    path = write(tmp_path / "a.parquet", pa.table({"image": rows, "label": [*labels[:3], None, *labels[4:]]}))
    with pytest.raises(UserError, match=r"row 3: the label is empty.*; --skip-bad \(data.skip_bad=true\) goes on"):
        load(path)
    splits = load(path, skip_bad=True)
    assert [(image.path, image.reason) for image in splits.rejected] == [(f"{path}, row 3", "the label is empty")]
    assert len(splits.pool) + len(splits.val) + len(splits.test) == 19
    assert splits.task.continuous == isinstance(labels[1], float)
