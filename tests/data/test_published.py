"""The public data sets, read from small files in the layouts that they are published in."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import published
import pytest
import torch
from pictures import noise
from PIL import Image

from cgankd.config import recipe
from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import public
from cgankd.data.imageset import Splits
from cgankd.data.sources import load
from cgankd.tasks import Classification, Regression


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(public.VARIABLE, str(tmp_path))
    monkeypatch.setattr(public, "SYSTEM", tmp_path / "system")
    return tmp_path


def read(source: str, **settings: object) -> Splits:
    return load(DataSettings.model_validate({"source": source, **settings}))


def by_recipe(name: str, *overrides: str) -> Splits:
    """What a ready recipe's data station reads, with overrides that fit a small file."""
    return load(recipe.load(name, overrides).data)


# --- Fashion-MNIST ------------------------------------------------------------------------------------------------


def test_fashion_mnist_keeps_its_pixels_and_its_split(home: Path) -> None:
    published.fashion_mnist(home / "fashion-mnist", per_class=5)
    splits = read("fashion-mnist", train_per_class=3, val_size=10)
    assert isinstance(splits.task, Classification)
    assert splits.task.class_names[9] == "Ankle boot"
    assert splits.train.images.shape == (30, 1, 28, 28)
    assert torch.bincount(splits.train.labels).tolist() == [3] * 10
    assert (len(splits.pool), len(splits.val), len(splits.test)) == (40, 10, 20)
    for part in (splits.pool, splits.val, splits.test):  # row r of both files has class r modulo 10
        assert (part.images[:, 0, 0, 0] % 10 == part.labels).all()
    assert splits.test.images[:, 0, 0, 0].tolist() == list(range(20))
    expected = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(splits.test.images[7, 0, 1:].numpy(), expected[7, 1:])
    assert "50 training images; the published data set has 60,000" in splits.notes
    assert "20 test images; the published data set has 10,000" in splits.notes


def test_fashion_mnist_is_also_read_where_debian_puts_it_but_the_users_own_comes_first(home: Path) -> None:
    published.fashion_mnist(public.SYSTEM / "fashion-mnist", per_class=4)
    assert len(read("fashion-mnist", val_size=10).train) == 30
    published.fashion_mnist(home / "fashion-mnist" / "fashion", per_class=6)  # a folder inside, as fetched
    assert len(read("fashion-mnist", val_size=10).train) == 50


PIXELS = np.zeros((40, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "train-images-idx3",
            published.idx(PIXELS)[:60],
            r"is not a complete \.gz file .*; delete it and fetch it again",
        ),
        ("t10k-images-idx3", b"no gzip", r"is not a complete \.gz file \(Not a gzipped file"),
        (
            "train-images-idx3",
            published.idx(np.zeros(40)),
            r"begins with the bytes '00 00 08 01'; allowed: '00 00 08 03', an IDX file .* with 3 dimensions$",
        ),
        ("train-labels-idx1", gzip.compress(b""), r"the bytes ''; allowed: '00 00 08 01', .* with 1 dimension$"),
        (
            "train-labels-idx1",
            gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 40]) + bytes(39)),
            "its content has 47 bytes; needed: 48, because its first bytes announce 40 values",
        ),
        ("train-images-idx3", published.idx(PIXELS[:, :20]), "images are 28x20 pixels; allowed: 28x28"),
        ("train-labels-idx1", published.idx(np.zeros(39)), "has 39 labels for 40 images; needed: one for each"),
        ("train-labels-idx1", published.idx(np.arange(40) % 11), "row 10: label 10 is not a class; allowed: 0 to 9"),
    ],
    ids=["cut", "no gzip", "labels for images", "empty", "a value short", "narrow", "a label short", "label 10"],
)
def test_broken_fashion_mnist_files_are_refused(home: Path, file: str, content: bytes, message: str) -> None:
    folder = published.fashion_mnist(home / "fashion-mnist")
    (folder / f"{file}-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=rf"fashion-mnist/{file}-ubyte\.gz.*{message}"):
        read("fashion-mnist")


def test_a_missing_file_of_fashion_mnist_is_named(home: Path) -> None:
    folder = published.fashion_mnist(home / "fashion-mnist")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"fashion-mnist: t10k-labels-idx1-ubyte\.gz is missing; needed: all four"):
        read("fashion-mnist")


# --- CIFAR --------------------------------------------------------------------------------------------------------


def test_cifar10_from_the_folder_and_from_the_archive_are_the_same(home: Path) -> None:
    inner = published.cifar10(home / "cifar10")
    one = read("cifar10", val_size=20)
    published.packed(inner, home / "cifar10" / "cifar-10-binary.tar.gz")
    for file in inner.iterdir():
        file.unlink()
    two = read("cifar10", val_size=20)
    for part in ("train", "val", "test"):
        assert getattr(one, part).content_key == getattr(two, part).content_key
    assert one.task == Classification(tuple(published.CIFAR10))
    assert len(one.train) + len(one.val) == 200
    assert "200 training images; the published data set has 50,000" in one.notes
    assert "40 test images; the published data set has 10,000" in one.notes
    raw = published.cifar_records([label for label in range(10) for _ in range(4)], 99)
    record = np.frombuffer(raw, np.uint8).reshape(40, 3073)[7]
    assert int(one.test.labels[7]) == record[0] == 1
    np.testing.assert_array_equal(one.test.images[7].numpy(), record[1:].reshape(3, 32, 32))  # red, green, blue


def test_cifar100_takes_the_fine_label(home: Path) -> None:
    published.cifar100(home / "cifar100")
    splits = by_recipe("cifar100", "data.val_size=100")
    assert isinstance(splits.task, Classification)
    assert splits.task.class_names[99] == "fine_99"
    assert splits.test.labels.tolist() == list(range(100))
    assert torch.bincount(splits.train.labels).tolist() == [2] * 100


@pytest.mark.parametrize("name", ["cifar10-50k", "cifar10-20k", "cifar10-10k"])
def test_the_cifar10_recipes_read_it(home: Path, name: str) -> None:
    published.cifar10(home / "cifar10")
    wanted = {"cifar10-50k": None, "cifar10-20k": 20_000, "cifar10-10k": 10_000}[name]
    assert recipe.load(name).data.train_size == wanted
    splits = by_recipe(name, "data.train_size=100", "data.val_size=20")
    assert torch.bincount(splits.train.labels).tolist() == [10] * 10
    assert len(splits.test) == 40


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data_batch_2.bin", b"x" * 3072, r"data_batch_2.bin has 3,072 bytes; allowed: whole records of 3,073"),
        ("test_batch.bin", b"", "test_batch.bin has 0 bytes"),
        (
            "data_batch_1.bin",
            bytes([3]) + bytes(3072) + bytes([10]) + bytes(3072),
            "record 1: label 10 is not a class",
        ),
        ("batches.meta.txt", b"cat dog", "batches.meta.txt names 2 classes; needed: that file, with 10"),
    ],
)
def test_broken_cifar_files_are_refused(home: Path, file: str, content: bytes, message: str) -> None:
    inner = published.cifar10(home / "cifar10")
    (inner / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read("cifar10")


def test_a_cut_archive_is_refused(home: Path) -> None:
    inner = published.cifar10(home / "elsewhere")
    archive = published.packed(inner, home / "cifar10" / "cifar-10-binary.tar.gz")
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"is not a complete .tar.gz .*; delete it and fetch it again"):
        read("cifar10")


# --- the setting of FS-BBT ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "labels"),
    [("fsbbt-fashion", 10, 2_000), ("fsbbt-cifar10", 10, 2_000), ("fsbbt-cifar100", 100, 5_000)],
)
def test_the_fsbbt_recipes_have_as_many_labels_as_published_with_those_that_validate(
    home: Path, name: str, classes: int, labels: int
) -> None:
    data = recipe.load(name).data
    assert data.train_per_class is not None
    assert data.val_size is not None
    assert data.train_per_class * classes + data.val_size == labels
    published.fashion_mnist(home / "fashion-mnist")
    published.cifar10(home / "cifar10")
    published.cifar100(home / "cifar100")
    splits = by_recipe(name, "data.train_per_class=1", f"data.val_size={classes}")
    assert torch.bincount(splits.train.labels).tolist() == [1] * classes
    images = {"fsbbt-fashion": 40, "fsbbt-cifar10": 200, "fsbbt-cifar100": 300}[name]
    assert len(splits.pool) == images - classes  # the teacher's: all training images but those that validate


@pytest.mark.parametrize(
    ("name", "teacher", "student"),
    [
        ("fsbbt-fashion", "lenet5", "lenet5_half"),
        ("fsbbt-cifar10", "alexnet", "alexnet_half"),
        ("fsbbt-cifar100", "resnet32", "resnet20"),
    ],
)
def test_the_fsbbt_recipes_have_the_published_networks_and_only_ask_the_teacher(
    name: str, teacher: str, student: str
) -> None:
    settings = recipe.load(name)
    assert (settings.teacher.network, settings.student.network) == (teacher, student)
    assert settings.teacher.trained_on == "pool"
    assert settings.ratio.features.kind == "classifier" or settings.synthesis.subsampling.kind == "none"
    assert settings.generator.guidance is None
    assert settings.metrics.generator is not None
    assert settings.metrics.generator.features == ("nokd",)
    assert {"nokd_longer", "kd"} < set(settings.rows)
    assert any(row.startswith("fm") for row in settings.rows)
    assert any(row.startswith("cgan+fm") for row in settings.rows)


# --- ImageNet -----------------------------------------------------------------------------------------------------


def test_tiny_imagenet_tests_on_its_annotated_validation_images(home: Path) -> None:
    root = published.tiny_imagenet(home / "tiny-imagenet")
    splits = by_recipe("tiny-imagenet", "data.val_size=6")
    assert splits.task == Classification(("n00000000", "n00000001", "n00000002"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (18, 6, 6)
    assert splits.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    with Image.open(root / "val" / "images" / "val_4.JPEG") as image:
        np.testing.assert_array_equal(splits.test.images[4].permute(1, 2, 0).numpy(), np.asarray(image))
    assert "3 classes; the published data set has 200" in splits.notes
    assert "the published validation images are the test split" in splits.notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG\tn99\t0\t0\t1\t1", "line 1: class 'n99' has no training image"),
        ("val_77.JPEG\tn00000000\t0\t0\t1\t1", "line 1: file 'val_77.JPEG' is not in"),
        ("val_0.JPEG n00000000", "line 1: found 'val_0.JPEG n00000000'; allowed: FILE, a tab, CLASS"),
    ],
)
def test_tiny_imagenet_annotations_that_do_not_fit(home: Path, line: str, message: str) -> None:
    root = published.tiny_imagenet(home / "tiny-imagenet")
    (root / "val" / "val_annotations.txt").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read("tiny-imagenet")


def test_imagenet_100_as_folders_and_as_the_authors_file(home: Path) -> None:
    for number in range(3):
        for image in range(8):
            published.write_jpeg(home / "imagenet-100" / "train" / f"n{number}" / f"{image}.JPEG", image, 20 + number)
        published.write_jpeg(home / "imagenet-100" / "val" / f"n{number}" / "0.JPEG", 50 + number, 18)
    splits = by_recipe("imagenet-100", "data.size=16", "data.val_size=6")
    assert splits.test.labels.tolist() == [0, 1, 2]
    assert splits.test.images.shape == (3, 3, 16, 16)
    assert (len(splits.train), len(splits.val)) == (18, 6)
    labels = np.arange(30) % 3
    published.split_h5(home / "imagenet-100" / "ImageNet_128x128_100Class.h5", labels, labels[:9], ("train", "valid"))
    other = read("imagenet-100", val_size=6)
    assert (len(other.train), len(other.val), len(other.test)) == (24, 6, 9)
    assert other.test.images[:, 0, 0, 0].tolist() == list(range(9))
    assert "3 classes; the published data set has 100" in other.notes


# --- scalar labels ------------------------------------------------------------------------------------------------


def test_rc49_trains_on_odd_tenths_and_tests_on_even_ones(home: Path) -> None:
    published.rc49(home / "rc49" / "RC-49_64x64.h5")
    splits = by_recipe("rc49-5", "data.train_per_class=2", "data.val_size=10")
    assert splits.task == Regression(0.0, 90.0, "degrees")
    owned, counts = splits.train.labels.unique(return_counts=True)
    assert (owned * 10).round().int().tolist() == list(range(1, 41, 2))
    assert counts.tolist() == [2] * 20
    assert (len(splits.val), len(splits.pool), len(splits.test)) == (10, 70, 80)
    for part in (splits.pool, splits.val, splits.test):
        np.testing.assert_allclose(part.labels.numpy() * 10, part.images[:, 1, 0, 0].numpy(), atol=1e-4)
    assert "160 images; the published data set has 44,051" in splits.notes
    by_chair = read("rc49", group_column="types", val_size=20)
    chairs = [set(part.images[:, 0, 0, 0].tolist()) for part in (by_chair.pool, by_chair.val)]
    assert not chairs[0] & chairs[1]


@pytest.mark.parametrize("name", ["rc49-25", "rc49-15", "rc49-5"])
def test_the_rc49_recipes_say_how_many_images_an_angle_has(name: str) -> None:
    assert recipe.load(name).data.train_per_class == int(name.rsplit("-", 1)[1])


def test_rc49_without_usable_training_rows_is_refused(home: Path) -> None:
    path = published.rc49(home / "rc49" / "RC-49_64x64.h5")
    with h5py.File(path, "a") as file:
        del file["indx_train"]
    with pytest.raises(UserError, match=r"RC-49_64x64.h5: has no array 'indx_train'; found: images, labels, types"):
        read("rc49")
    with h5py.File(path, "a") as file:
        file["indx_train"] = np.array([0, 160])
    with pytest.raises(UserError, match="'indx_train' is not a list of rows; allowed: whole numbers, 0 to 159"):
        read("rc49")
    with pytest.raises(UserError, match=r"group_column='chair' is not a column of rc49; allowed: types"):
        read("rc49", group_column="chair")


def test_utkface_files_named_by_age(home: Path) -> None:
    folder = home / "utkface" / "UTKFace"
    folder.mkdir(parents=True)
    ages = [*range(1, 61), 0, 61, 116]
    for number, age in enumerate(ages):
        name = f"{age}_{number % 2}_{number % 5}_20170116174525{number:03}.jpg.chip.jpg"
        Image.fromarray(noise(number, 20, 20)).save(folder / name, "PNG")  # so that pixels can be compared
    Image.fromarray(noise(0)).save(folder / "61_1_20170109142408075.jpg.chip.jpg", "JPEG")  # as one is published
    splits = by_recipe("utkface", "data.size=20", "data.val_size=10")
    assert splits.task == Regression(1.0, 60.0, "years")
    labels = torch.cat([splits.pool.labels, splits.val.labels, splits.test.labels])
    assert sorted(labels.tolist()) == list(range(1, 61))
    for image, age in zip(splits.test.images, splits.test.labels.tolist(), strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), noise(int(age) - 1, 20, 20))
    assert any("1 files whose names lack age" in note for note in splits.notes)
    assert "labels of 3 of 63 images are outside 1 to 60 years; these images were left out" in splits.notes


def test_utkface_with_the_published_split(home: Path) -> None:
    train = np.tile(np.arange(0, 65), 2)
    published.split_h5(home / "utkface" / "UTKFace_64x64_prop_0.8.h5", train, np.array([70, 20, 30]))
    splits = read("utkface", val_size=12)
    assert len(splits.train) + len(splits.val) == 120
    assert splits.test.labels.tolist() == [20.0, 30.0]
    assert splits.test.images[:, 0, 0, 0].tolist() == [1, 2]  # rows stay with their images
    np.testing.assert_array_equal(splits.pool.labels.numpy(), train[splits.pool.images[:, 0, 0, 0].numpy()])
    assert "labels of 11 of 133 images are outside 1 to 60 years; these images were left out" in splits.notes
    assert splits.test.images.shape[1:] == (3, 64, 64)


def test_steering_angle_lines_with_and_without_a_date(home: Path) -> None:
    folder = home / "steering-angle" / "driving_dataset"
    lines = []
    for number in range(60):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number, 18, 24)).save(folder / "data" / f"{number}.jpg", "JPEG")
        date = ",2018-07-01 17:09:44:912" if number % 2 else ""
        lines.append(f"{number}.jpg {number * 3 - 80.5:.6f}{date}")
    (folder / "data.txt").write_text("\n".join(lines) + "\n")
    splits = by_recipe("steering-angle", "data.size=16", "data.val_size=10")
    assert splits.task == Regression(-88.13, 97.92, "degrees")
    labels = torch.cat([splits.pool.labels, splits.val.labels, splits.test.labels])
    assert sorted(labels.tolist()) == [number * 3 - 80.5 for number in range(60)]
    assert (len(splits.val), len(splits.test)) == (10, 12)
    (folder / "data.txt").write_text("0.jpg 1.0\n1.jpg left\n")
    with pytest.raises(UserError, match=r"data.txt, line 2: found '1.jpg left'; allowed: FILE ANGLE"):
        read("steering-angle")
    (folder / "data.txt").write_text("0.jpg 1.0\n99.jpg 2.0\n")
    with pytest.raises(UserError, match=r"line 2: file '99.jpg' is not in"):
        read("steering-angle")


def test_steering_angle_with_the_published_split(home: Path) -> None:
    train = np.linspace(-88.13, 97.92, 80).astype(np.float32)
    published.split_h5(home / "steering-angle" / "SteeringAngle_64x64_prop_0.8.h5", train, np.array([0.5, -200.0]))
    splits = read("steering-angle", val_size=10)
    assert len(splits.train) == 70
    assert splits.test.labels.tolist() == [0.5]
    assert isinstance(splits.task, Regression)
    assert float(splits.pool.labels.min()) >= splits.task.low - 1e-5


def test_labels_that_are_not_finite_are_refused(home: Path) -> None:
    published.split_h5(home / "utkface" / "UTKFace_64x64_prop_0.8.h5", np.array([3.0, np.nan]), np.array([4.0]))
    with pytest.raises(UserError, match="array 'labels_train', row 1: label nan is not finite"):
        read("utkface")
    published.split_h5(home / "utkface" / "UTKFace_64x64_prop_0.8.h5", np.array([100.0]), np.array([101.0]))
    with pytest.raises(UserError, match="no label is in 1 to 60 years"):
        read("utkface")


# --- what is missing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(public.PUBLIC))
def test_a_missing_set_says_what_to_fetch_and_where_to_put_it(home: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        read(name)
    said = str(caught.value)
    assert "\n" not in said
    assert str(home / name) in said
    wanted = public.PUBLIC[name]
    assert wanted.what in said
    assert wanted.page in said
    assert (f"cgankd data get {name}" in said) == (wanted.archive is not None)
    assert ("Debian's package dataset-fashion-mnist" in said) == (name == "fashion-mnist")


def test_rendered_chairs_that_are_missing(home: Path) -> None:
    with pytest.raises(UserError, match=r"chairs.npz; cgankd data render FOLDER makes it"):
        read("chairs")


@pytest.mark.parametrize("name", [*sorted(public.PUBLIC), "chairs"])
def test_columns_that_a_set_does_not_have_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"group_column='drive' is not a column of {name}"):
        read(name, group_column="drive")
    with pytest.raises(UserError, match=r"label_column='x' is for metadata\.csv"):
        read(name, label_column="x")
