"""Arrays in .npz and HDF5 files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pictures import read

from cgankd.core.errors import UserError
from cgankd.tasks import Classification, Regression


def images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *(shape or (3, 16, 16))), dtype=np.uint8)


def write(path: Path, arrays: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                text = np.asarray(values).dtype.kind == "U"
                file[name] = values.astype(h5py.string_dtype()) if text else values
    return path


FILES = pytest.mark.parametrize("suffix", [".npz", ".h5"])


@FILES
@pytest.mark.parametrize(("x", "y"), [("x", "y"), ("images", "labels")])
def test_train_and_test_arrays(tmp_path: Path, suffix: str, x: str, y: str) -> None:
    train, test = images(40), images(12, seed=1)
    arrays = {
        f"{x}_train": train,
        f"{y}_train": np.arange(40) % 4,
        f"{x}_test": test,
        f"{y}_test": np.arange(12) % 4,
    }
    names = np.array(["ant", "bee", "cow", "dog"])
    splits = read(write(tmp_path / f"set{suffix}", {**arrays, "class_names": names, "more": np.zeros(3)}))
    assert splits.name == "set"
    assert splits.task == Classification(("ant", "bee", "cow", "dog"))
    np.testing.assert_array_equal(splits.test.images.numpy(), test)
    assert splits.test.labels.tolist() == (np.arange(12) % 4).tolist()
    pooled = torch.cat([splits.pool.images, splits.val.images]).numpy()
    labels = torch.cat([splits.pool.labels, splits.val.labels]).numpy()
    for image, label in zip(pooled, labels, strict=True):
        row = [n for n in range(40) if np.array_equal(train[n], image)]
        assert len(row) == 1
        assert row[0] % 4 == label
    assert "arrays that were not used: more" in splits.notes


@FILES
def test_one_pair_of_arrays_is_split(tmp_path: Path, suffix: str) -> None:
    labels = np.linspace(-1, 1, 50, dtype=np.float32)
    splits = read(write(tmp_path / f"set{suffix}", {"images": images(50), "labels": labels}), unit="rad")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [27, 13, 10]
    low, high = splits.train.labels.min(), splits.train.labels.max()
    assert splits.task == Regression(
        min(float(low), float(splits.val.labels.min())), max(float(high), float(splits.val.labels.max())), "rad"
    )


@FILES
def test_own_validation_and_groups(tmp_path: Path, suffix: str) -> None:
    arrays: dict[str, Any] = {}
    for part, count, seed in (("train", 40, 0), ("val", 10, 1), ("test", 10, 2)):
        arrays |= {f"x_{part}": images(count, seed=seed), f"y_{part}": np.arange(count) / 8}
        arrays[f"object_{part}"] = np.arange(count) // 5 + 100 * seed
    splits = read(write(tmp_path / f"set{suffix}", arrays), group_column="object")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [40, 10, 10]
    assert len(splits.val.columns["group"].unique()) == 2
    assert not any("groups occur" in note for note in splits.notes)


def test_whole_numbers_of_several_types_are_classes(tmp_path: Path) -> None:
    """NumPy joins uint64 and int64 as decimals, which would be scalars."""
    x, y = images(20), np.arange(20) % 3
    arrays = {"x_train": x, "y_train": y.astype(np.uint64), "x_test": x, "y_test": y.astype(np.int64)}
    assert read(write(tmp_path / "set.npz", arrays)).task == Classification(("0", "1", "2"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 16, 20), (3, 16, 20)), ((16, 20, 3), (3, 16, 20)), ((16, 20), (1, 16, 20)), ((16, 20, 1), (1, 16, 20))],
)
def test_layouts(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = images(20, *shape)
    splits = read(
        write(tmp_path / "set.npz", {"x_train": x, "y_train": np.arange(20) % 2, "x_test": x[:2], "y_test": [0, 1]})
    )
    assert tuple(splits.test.images.shape[1:]) == expected
    as_nchw = x[:2].reshape(2, *expected) if shape[-1] != 3 else x[:2].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(splits.test.images.numpy(), as_nchw)


def test_the_same_policy_as_for_files(tmp_path: Path) -> None:
    x = images(20, 16, 32, 4)
    x[..., 3] = 255
    path = write(tmp_path / "set.npz", {"images": x, "labels": np.arange(20) % 2})
    splits = read(path, size=16, channels=1)
    assert splits.train.images.shape[1:] == (1, 16, 16)
    assert [note.split(" images ")[1][:20] for note in splits.notes if " of 20 images" in note] == [
        "are transparent; bla", "were converted from ", "were resized to 16x1",
    ]  # fmt: skip
    grey = splits.test.images[0, 0].numpy()
    centres = x[:, :, 8:24, :3] @ [0.299, 0.587, 0.114]
    assert min(np.abs(centre - grey).max() for centre in centres) <= 1.0


def test_whole_numbers_with_gaps_become_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "set.npz", {"images": images(30), "labels": np.array([3, 7, 20] * 10, np.uint8)})
    splits = read(path)
    assert splits.task == Classification(("3", "7", "20"))
    assert set(splits.train.labels.tolist()) == {0, 1, 2}
    assert read(path, task="regression").task == Regression(3.0, 20.0)


def test_decimals_that_are_whole_may_be_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "set.npz", {"images": images(30), "labels": np.arange(30)[:, None] % 3 * 1.0})
    assert read(path).task == Regression(0.0, 2.0)
    assert read(path, task="classification").task == Classification(("0", "1", "2"))


@FILES
def test_text_labels(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"set{suffix}", {"images": images(20), "labels": np.array(["öl", "ei"] * 10)})
    assert read(path).task == Classification(("ei", "öl"))


def test_class_names_without_images_are_left_out(tmp_path: Path) -> None:
    arrays = {"images": images(20), "labels": np.arange(20) % 2 * 2, "class_names": np.array(["a", "b", "c"])}
    splits = read(write(tmp_path / "set.npz", arrays))
    assert splits.task == Classification(("a", "c"))
    assert "1 of 3 class_names have no training image and were left out" in splits.notes


GOOD: dict[str, Any] = {
    "x_train": images(20),
    "y_train": np.arange(20) % 2,
    "x_test": images(4),
    "y_test": np.arange(4) % 2,
}


@FILES
@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"y_train": None}, {}, "has 'x_train' but no 'y_train'; found: x_t"),
        ({"x_train": None}, {}, "has 'x_test' but no 'x_train'"),
        ({"x_train": None, "x_test": None}, {}, "found arrays y_.*; needed: x_train and y_train"),
        ({"x_train": images(20) / 255}, {}, "'x_train' holds float64; allowed: images as uint8 or uint16; scale dec"),
        ({"x_train": images(20).astype(np.int32)}, {}, "'x_train' holds int32; allowed: images as uint8 or uint16$"),
        ({"x_train": images(20, 5, 16, 16)}, {}, r"'x_train' has shape \[20, 5, 16, 16\]; allowed: "),
        ({"x_test": images(4, 3, 16, 18)}, {}, "images come in 2 sizes"),
        ({"y_train": np.arange(19)}, {}, "'y_train' has 19 rows, but there are 20 images"),
        ({"y_train": np.eye(20)}, {}, r"'y_train' has shape \[20, 20\]; allowed: \[N\]"),
        ({"y_test": np.array([0, 1, 0, 2])}, {}, "'y_test', row 3: class '2' has no training image"),
        ({"y_train": np.where(np.arange(20) == 4, np.nan, np.arange(20.0))}, {}, "'y_train', row 4: label nan"),
        ({"y_test": np.array([0, 1, 1, 9])}, {"task": "regression", "label_range": (0, 1)}, "row 3: label 9 is"),
        ({"y_train": np.arange(20) / 3}, {"task": "classification"}, "row 1: label 0.333333 is not a class"),
        ({"y_train": np.zeros(20, int)}, {}, "1 distinct training label"),
        ({"y_train": np.arange(20) * 1j}, {}, "'y_train' holds complex128; allowed: whole numbers"),
        ({"y_train": np.array(["a", "b"] * 10)}, {}, "text in one split and numbers in another"),
        ({"class_names": np.array(["a"])}, {}, "'y_train', row 1: label 1 is outside class_names; allowed: 0 to 0"),
        ({"class_names": np.array(["a", "a"])}, {}, "'class_names' holds a name twice"),
        ({}, {"group_column": "who"}, "group_column='who' needs an array 'who_train'; found: x_t"),
        ({"who_train": np.zeros(20), "who_test": np.zeros(3)}, {"group_column": "who"}, "'who_test' has 3 rows"),
        ({}, {"label_column": "angle"}, "data.label_column='angle' is for metadata.csv"),
    ],
)  # fmt: skip
def test_arrays_that_can_not_be_used(
    tmp_path: Path, suffix: str, changes: dict[str, Any], settings: dict[str, object], message: str
) -> None:
    order = [name for name in (*GOOD, *changes) if changes.get(name, 0) is not None]
    path = write(tmp_path / f"set{suffix}", {name: {**GOOD, **changes}[name] for name in dict.fromkeys(order)})
    with pytest.raises(UserError, match=message) as caught:
        read(path, **settings)
    assert "\n" not in str(caught.value)
    if "label_column" not in settings:
        assert str(path) in str(caught.value)


def test_pickled_objects_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "set.npz"
    np.savez(path, **{**GOOD, "y_train": np.array([Trap()] * 20, dtype=object)})
    with pytest.raises(UserError, match="array 'y_train' holds Python objects"):
        read(path)
    np.array([Trap()], dtype=object).dump(path)
    with pytest.raises(UserError, match=r"not readable as .npz; allowed: what numpy.savez writes"):
        read(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["set.npz", "set.h5", "set.hdf5"])
def test_files_of_another_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not arrays")
    with pytest.raises(UserError, match=f"{name}: not readable as"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"{name}: not readable as"):
        read(tmp_path / name)


def test_a_spoilt_archive_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "set.npz", GOOD)
    content = bytearray(path.read_bytes())
    content[5000] ^= 0xFF  # inside x_train, whose checksum then fails
    path.write_bytes(content)
    with pytest.raises(UserError, match="array 'x_train' is broken"):
        read(path)


def test_a_single_array_is_not_an_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", images(3))
    (tmp_path / "set.npy").rename(tmp_path / "set.npz")
    with pytest.raises(UserError, match=r"not readable as .npz"):
        read(tmp_path / "set.npz")
    with pytest.raises(UserError, match="is a file of another kind; allowed: a folder"):
        read(Path(__file__))


def test_a_large_hdf5_file_is_read_piecemeal(tmp_path: Path) -> None:
    x, y = images(2500, 1, 16, 16), np.arange(2500) % 5
    splits = read(write(tmp_path / "set.h5", {"images": x, "labels": y}), train_size=100)
    content = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    for part in (splits.train, splits.pool, splits.val, splits.test):
        for image, label in zip(part.images.numpy(), part.labels.tolist(), strict=True):
            assert content[image.tobytes()] == label
