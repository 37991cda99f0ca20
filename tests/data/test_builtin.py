"""The data sets that come with the package."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.fashion import UPRIGHT, turned
from cgankd.data.imageset import ImageSet, Splits
from cgankd.data.public import PUBLIC
from cgankd.data.sources import builtin_names, load
from cgankd.tasks import Classification, Regression


def contents(part: ImageSet) -> set[bytes]:
    return {hashlib.sha256(image.tobytes()).digest() for image in part.images.numpy()}


def per_class(part: ImageSet) -> list[int]:
    return torch.bincount(part.labels).tolist()


def assert_apart(splits: Splits) -> None:
    assert len(contents(splits.pool)) == len(splits.pool)
    assert not contents(splits.pool) & contents(splits.val)
    assert not contents(splits.pool) & contents(splits.test)
    assert not contents(splits.val) & contents(splits.test)
    assert contents(splits.train) <= contents(splits.pool)


def test_every_builtin_is_described_and_loads() -> None:
    fetched = [*PUBLIC, "chairs"]
    assert list(builtin_names()) == ["digits", "fashion", "rotated-fashion", *fetched]
    for name, description in builtin_names().items():
        assert "\n" not in description
        assert description
        if name not in fetched:
            splits = load(DataSettings(source=name, train_size=50))
            assert splits.name == name
            assert len(splits.train) == 50


def test_fashion_counts_and_no_image_twice() -> None:
    splits = load(DataSettings(source="fashion", train_per_class=20))
    assert isinstance(splits.task, Classification)
    assert splits.task.class_names[1] == "Trouser"
    assert splits.task.class_names[9] == "Ankle boot"
    assert splits.train.images.shape == (200, 1, 32, 32)
    assert per_class(splits.train) == [20] * 10
    assert per_class(splits.val) == [10] * 10  # a tenth of the 200 labelled images would be too few to choose by
    assert per_class(splits.pool) == [390] * 10
    assert per_class(splits.test) == [200] * 10
    assert_apart(splits)


def test_fashion_has_a_black_border() -> None:
    images = load(DataSettings(source="fashion")).test.images
    assert int(images[:, :, :2].max()) == int(images[:, :, :, -2:].max()) == 0
    assert int(images[:, :, 2:-2, 2:-2].max()) == 255


def test_fashion_at_another_size_in_colour() -> None:
    splits = load(DataSettings(source="fashion", train_size=20, size=16, channels=3))
    plain = load(DataSettings(source="fashion", train_size=20))
    assert splits.test.images.shape == (2000, 3, 16, 16)
    expected = Image.fromarray(plain.test.images[7, 0].numpy()).resize((16, 16), Image.Resampling.BILINEAR)
    for channel in range(3):
        np.testing.assert_array_equal(splits.test.images[7, channel].numpy(), np.asarray(expected))


def test_digits_counts_and_values() -> None:
    from sklearn.datasets import load_digits

    splits = load(DataSettings(source="digits"))
    assert splits.train.images.shape[1:] == (1, 16, 16)
    assert len(splits.test) == round(1797 / 4)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 1797
    share = np.bincount(load_digits().target) / 4
    assert np.abs(np.array(per_class(splits.test)) - share).max() <= 1
    # Enlarging twofold with bilinear weights keeps the mean of an image whose rim is black.
    small = load_digits().images * 255 / 16
    mean = torch.cat([part.images for part in (splits.train, splits.val, splits.test)]).double().mean().item()
    assert mean == pytest.approx(small.mean(), abs=1.0)
    assert_apart(splits)


@pytest.mark.parametrize("source", ["digits", "rotated-fashion"])
def test_the_seed_alone_decides(source: str) -> None:
    one = load(DataSettings(source=source, train_size=60, seed=5))
    again = load(DataSettings(source=source, train_size=60, seed=5))
    other = load(DataSettings(source=source, train_size=60, seed=6))
    for name in ("train", "pool", "val", "test"):
        assert getattr(one, name).content_key == getattr(again, name).content_key
        assert getattr(one, name).content_key != getattr(other, name).content_key


def test_the_pool_does_not_depend_on_which_of_its_images_are_labelled() -> None:
    few, many = (load(DataSettings(source="digits", train_size=size, val_size=50)) for size in (60, 200))
    assert few.pool.content_key == many.pool.content_key
    for splits in (few, many):
        assert splits.labelled is not None
        assert splits.pool.take(splits.labelled).content_key == splits.train.content_key
        further = splits.unlabelled.images
        assert len(further) == len(splits.pool) - len(splits.train)
        found = contents(ImageSet(further, torch.zeros(len(further), dtype=torch.int64)))
        assert found | contents(splits.train) == contents(splits.pool)
    everyone = load(DataSettings(source="digits", val_size=50))
    assert everyone.pool is everyone.train
    assert not len(everyone.unlabelled)


@pytest.mark.parametrize("degrees", [0.0, 17.0, 45.0, 90.0])
def test_turned_is_counter_clockwise_about_the_centre_as_pillow_turns(degrees: float) -> None:
    image = load(DataSettings(source="fashion", train_size=10)).test.images[:40]
    ours = turned(image, torch.full((40,), degrees))
    theirs = np.stack([Image.fromarray(one[0].numpy()).rotate(degrees, Image.Resampling.BILINEAR) for one in image])
    inside = np.s_[:, 4:-4, 4:-4]  # at the rim Pillow doesn't blend with black
    difference = np.abs(ours[:, 0].numpy()[inside].astype(int) - theirs[inside].astype(int))
    assert difference.mean() < 1.0
    if degrees in (0.0, 90.0):
        np.testing.assert_array_equal(ours[:, 0].numpy(), np.rot90(image[:, 0].numpy(), int(degrees) // 90, (1, 2)))


def long_axis(image: np.ndarray) -> float:
    """Degrees, 0 to 180, from the image's upward vertical counter-clockwise to its long axis (second moments)."""
    weight = image.astype(np.float64) / image.sum()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    x, up = x - (weight * x).sum(), (weight * y).sum() - y
    xx, yy, xy = (weight * x * x).sum(), (weight * up * up).sum(), (weight * x * up).sum()
    from_x_axis = 0.5 * np.degrees(np.arctan2(2 * xy, xx - yy))
    return float((from_x_axis - 90) % 180)


def test_rotated_labels_are_the_angles_seen_in_the_images() -> None:
    trousers = load(DataSettings(source="fashion", train_size=10)).test
    upright = trousers.images[trousers.labels == 1][:50]
    angles = torch.linspace(5, 85, 50)
    seen = np.array([long_axis(image[0].numpy()) for image in turned(upright, angles)])
    start = np.array([long_axis(image[0].numpy()) for image in upright])
    error = (seen - start - angles.numpy() + 90) % 180 - 90
    assert np.abs(error).max() < 3.0


def test_rotated_fashion_ranges_groups_and_turns() -> None:
    splits = load(DataSettings(source="rotated-fashion", turns=3, train_size=500))
    assert splits.task == Regression(0.0, 90.0, "degrees")
    assert len(splits.pool) + len(splits.val) == 400 * len(UPRIGHT) * 3
    assert len(splits.test) == 200 * len(UPRIGHT)
    labels = splits.pool.labels
    assert labels.dtype == torch.float32
    assert float(labels.min()) >= 0.0
    assert float(labels.max()) < 90.0
    counts = torch.histc(labels, bins=9, min=0, max=90) / len(labels)
    assert float((counts - 1 / 9).abs().max()) < 0.02
    groups = {name: set(getattr(splits, name).columns["group"].tolist()) for name in ("pool", "val", "test")}
    assert not groups["pool"] & groups["val"]
    assert not groups["pool"] & groups["test"]
    assert not groups["val"] & groups["test"]
    assert abs(len(splits.val) - 100) <= 3
    owners = torch.histc(splits.train.labels, bins=9, min=0, max=90)
    assert float(owners.min()) > 0.7 * 500 / 9
    assert_apart(splits)


def test_the_owners_images_come_from_distinct_garments_while_there_are_any() -> None:
    splits = load(DataSettings(source="rotated-fashion", turns=4, train_size=1500))
    assert len(splits.train.columns["group"].unique()) == 1500
    first_views = load(DataSettings(source="rotated-fashion", turns=1))
    assert contents(splits.train) <= contents(first_views.pool) | contents(first_views.val)
    everyone = load(DataSettings(source="rotated-fashion", turns=2, train_size=2500))
    assert len(everyone.train) == 2500
    assert len(everyone.train.columns["group"].unique()) == len(everyone.pool.columns["group"].unique())


def test_more_turns_change_no_view_that_was_there() -> None:
    few = load(DataSettings(source="rotated-fashion", turns=1))
    many = load(DataSettings(source="rotated-fashion", turns=2))
    assert contents(few.pool) | contents(few.val) <= contents(many.pool) | contents(many.val)
    assert few.test.content_key == many.test.content_key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "fashoin"}, "does not exist .did you mean 'fashion'.*digits, fashion, rotated-fashion"),
        ({"source": "digits", "task": "regression"}, "digits is classification"),
        ({"source": "rotated-fashion", "task": "classification"}, "rotated-fashion is regression"),
        ({"source": "rotated-fashion", "label_range": (0, 45)}, "label_range and data.circular can't change"),
        ({"source": "digits", "train_size": 5}, "train_size=5, but there are 10 classes"),
        ({"source": "digits", "train_size": 1348}, r"train_size=1348.*has 1,213 images"),
        ({"source": "fashion", "train_per_class": 399}, "train_per_class=399.*has 360 training images"),
        ({"source": "digits", "train_size": 20, "train_per_class": 2}, "both set; allowed: one"),
        ({"source": "digits", "val_size": 1347}, r"1,347 of 1,348 images are wanted.*; allowed: at most 1,346"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(DataSettings.model_validate(settings))


def test_progress_counts_every_image_once() -> None:
    seen: list[tuple[int, int]] = []
    load(DataSettings(source="digits"), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1797, 1797)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_the_made_file_is_small_and_licensed() -> None:
    from importlib import resources

    folder = resources.files("cgankd.data") / "builtin"
    assert len((folder / "fashion.npz").read_bytes()) < 4_000_000
    assert "Copyright (c) 2017 Zalando SE" in (folder / "FASHION-MNIST-LICENSE.txt").read_text()
