"""Splits: by class, by label, whole groups, sizes as asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.listing import TEST, TRAIN, VAL, Kind, Listing
from cgankd.data.split import Division, divide, hold_out


class NoPictures:
    def kinds(self) -> Counter[Kind]:
        raise NotImplementedError

    def read(self, rows, plan, done):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def listed(labels: np.ndarray, groups: np.ndarray | None = None, splits: np.ndarray | None = None) -> Listing:
    return Listing(
        where="here",
        pictures=NoPictures(),
        labels=labels,
        splits=np.full(len(labels), TRAIN) if splits is None else splits,
        place=str,
        groups=groups,
    )


def split(
    labels: np.ndarray, groups: np.ndarray | None = None, splits: np.ndarray | None = None, **settings
) -> Division:
    return divide(listed(labels, groups, splits), labels, DataSettings(**settings))


def parts(division: Division) -> list[np.ndarray]:
    return [division.train, division.rest, division.val, division.test]


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_in_exactly_one_part(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, 200)
    division = split(labels, seed=seed, train_size=60)
    assert sorted(np.concatenate(parts(division))) == list(range(200))
    assert [len(part) for part in parts(division)] == [
        60,
        47,
        53,
        40,
    ]  # a third of 160 validate, because 100 would be more


def test_test_and_validation_keep_the_shares_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    division = split(labels, test_fraction=0.2, val_size=80)
    assert np.bincount(labels[division.test]).tolist() == [100, 60, 40]
    assert np.bincount(labels[division.val]).tolist() == [40, 24, 16]
    assert not len(division.rest)


def test_a_test_share_is_refused_beside_a_test_split() -> None:
    labels, splits = np.repeat([0, 1, 2], [500, 300, 20]), np.repeat([TRAIN, TEST], [810, 10])
    with pytest.raises(UserError, match=r"test_fraction=0\.3, but here has its own test split of 10 images"):
        split(labels, splits=splits, test_fraction=0.3)
    assert len(split(labels, splits=splits, test_fraction=0.2).test) == 10


def test_the_owners_images_are_equally_many_per_class_as_far_as_there_are() -> None:
    labels = np.repeat([0, 1, 2], [500, 300, 20])
    division = split(labels, splits=np.repeat([TRAIN, TEST], [810, 10]), train_size=100, val_size=3)
    counts = np.bincount(labels[division.train])
    assert counts.tolist() == [46, 45, 9]  # 10 of the last class are training, 1 of which validates


def test_per_class_is_exact() -> None:
    labels = np.repeat(np.arange(7), 30)
    division = split(labels, train_per_class=11)
    assert np.bincount(labels[division.train]).tolist() == [11] * 7
    assert np.bincount(labels[division.val]).tolist() != []


def test_per_class_of_scalars_is_per_distinct_label() -> None:
    labels = np.repeat(np.linspace(0, 1, 20, dtype=np.float32), 15)
    division = split(labels, train_per_class=4)
    assert np.unique(labels[division.train], return_counts=True)[1].tolist() == [4] * 20


@pytest.mark.parametrize("seed", range(3))
def test_scalars_are_drawn_from_every_tenth_of_the_labels(seed: int) -> None:
    labels = (np.random.default_rng(seed).standard_normal(1000) ** 3).astype(np.float32)
    division = split(labels, seed=seed, train_size=100)
    tenths = np.digitize(labels, np.quantile(labels, np.linspace(0.1, 0.9, 9)))
    assert np.bincount(tenths[division.test]).tolist() == [20] * 10
    assert np.abs(np.bincount(tenths[division.train], minlength=10) - 10).max() <= 2


@pytest.mark.parametrize("seed", range(12))
def test_groups_are_never_divided(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(60, 400))
    groups = random.integers(0, random.integers(8, 40), size) * 7 - 3
    labels: np.ndarray = random.integers(0, 3, size)
    if seed % 2:
        labels = random.standard_normal(size).astype(np.float32)
    division = split(labels, groups, seed=seed)
    sets = [set(groups[part]) for part in (np.union1d(division.train, division.rest), division.val, division.test)]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    assert all(sets)
    if not seed % 2:
        assert set(labels[division.train]) == {0, 1, 2}
    largest = np.unique(groups, return_counts=True)[1].max()
    assert abs(len(division.test) - 0.2 * size) <= largest


def test_grouped_parts_keep_the_shares_of_the_classes() -> None:
    groups = np.arange(600) // 5
    labels = np.repeat([0, 1, 2], 200)  # 40 groups of each
    division = split(labels, groups, test_fraction=0.25, val_size=45)
    assert np.bincount(labels[division.test]).tolist() == [50, 50, 50]
    assert np.bincount(labels[division.val]).tolist() == [15, 15, 15]


def test_a_class_of_one_group_stays_in_training() -> None:
    groups = np.concatenate([np.arange(40) // 4, np.full(4, 99)])
    labels = np.concatenate([np.zeros(40, int), np.ones(4, int)])
    for seed in range(5):
        division = split(labels, groups, seed=seed, test_fraction=0.7)  # most of every class, if it could
        assert set(labels[division.train]) == {0, 1}


def test_given_splits_are_honoured() -> None:
    labels = np.arange(100) % 4
    given = np.repeat([TRAIN, VAL, TEST], [70, 10, 20])
    division = split(labels, splits=given)
    assert division.train.tolist() == list(range(70))
    assert division.val.tolist() == list(range(70, 80))
    assert division.test.tolist() == list(range(80, 100))


def test_validation_comes_out_of_training_where_only_a_test_split_is_given() -> None:
    division = split(np.arange(100) % 4, splits=np.repeat([TRAIN, TEST], [80, 20]))
    assert division.test.tolist() == list(range(80, 100))
    assert division.val.max() < 80
    assert len(division.val) == 26


def test_other_test_images_change_no_draw() -> None:
    labels, given = np.arange(120) % 4, np.repeat([TEST, TRAIN], [20, 100])  # test/ comes before train/
    before = split(labels, splits=given, train_size=40)
    after = split(labels[7:], splits=given[7:], train_size=40)
    assert [len(before.test), len(after.test)] == [20, 13]
    for name in ("train", "rest", "val"):
        assert (getattr(before, name) - 7).tolist() == getattr(after, name).tolist()


def test_groups_that_the_source_itself_divides_are_told() -> None:
    groups = np.arange(100) // 10
    groups[85] = 0
    division = split(np.arange(100) % 4, groups, np.repeat([TRAIN, TEST], [80, 20]))
    assert any("1 group is in both" in note for note in division.notes)


@pytest.mark.parametrize(
    ("training", "settings", "expected"),
    [
        (200, {}, 66),  # a third
        (300, {}, 100),  # what a choice needs
        (3000, {}, 300),  # a tenth
        (3000, {"train_size": 500}, 100),
        (200, {"train_size": 150}, 50),  # what the labelled images leave
        (200, {"train_size": 20}, 66),
        (200, {"train_per_class": 40}, 40),  # of 50 of each class
        (12, {}, 4),
    ],
)
def test_usual_validation_size(training: int, settings: dict[str, int], expected: int) -> None:
    labels = np.arange(training + 40) % 4
    division = split(labels, splits=np.repeat([TRAIN, TEST], [training, 40]), **settings)
    assert len(division.val) == expected
    uncertain = [note for note in division.notes if "a choice by its score may be chance" in note]
    assert len(uncertain) == (expected < 100)


def test_a_validation_split_that_is_too_small_to_choose_by_is_told() -> None:
    labels, given = np.arange(300) % 4, np.repeat([TRAIN, VAL, TEST], [200, 25, 75])
    note = "validation has only 25 images, so a choice by its score may be chance (standard error: {})"
    assert split(labels, splits=given).notes == (note.format("up to 10 points of accuracy"),)
    scalars = labels.astype(np.float32)
    assert split(scalars, splits=given).notes == (note.format("about a seventh of the mean absolute error"),)
    assert split(labels, val_size=25).notes == ("the source has no test split, so 60 images were drawn for it",)


def test_validation_of_few_groups_is_told() -> None:
    groups = np.arange(1200) // 100
    division = split(np.arange(1200) % 4, groups)
    assert len(set(groups[division.val])) == 1
    assert "validation has images of 1 group only, so its score depends on them" in division.notes
    many = split(np.arange(1200) % 4, np.arange(1200) // 3)
    assert not any("only, so its score" in note for note in many.notes)


def test_the_order_of_other_rows_does_not_matter() -> None:
    labels = np.zeros(50, int)
    chosen = hold_out(np.arange(50), labels, None, 10, 3, "x")
    again = hold_out(np.arange(50)[::-1].copy(), labels, None, 10, 3, "x")
    assert chosen.tolist() == again.tolist()


@pytest.mark.parametrize(
    ("labels", "groups", "given", "settings", "message"),
    [
        (np.arange(6) % 2, None, None, {}, "has 6 training images; at least 10"),
        (np.arange(40) % 2, np.zeros(40, int), None, {}, "all training images are of one group"),
        (np.arange(40) % 2, None, np.repeat([TRAIN, VAL], 20), {"val_size": 3}, "has its own validation"),
        (np.linspace(0, 1, 40, dtype=np.float32), None, None, {"train_per_class": 2}, "has 1 training images"),
        (np.arange(40) % 2, None, None, {"train_size": 30}, "train_size=30.*has 24 images"),
    ],
)
def test_what_can_not_be_split(labels, groups, given, settings, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        split(labels, groups, given, **settings)


def test_usual_validation_of_scalars() -> None:
    labels = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    for training, settings, expected in [(200, {}, 66), (360, {}, 100), (200, {"train_size": 150}, 50)]:
        division = split(labels[: training + 40], splits=np.repeat([TRAIN, TEST], [training, 40]), **settings)
        assert len(division.val) == expected
    repeated = np.repeat(np.linspace(0, 1, 20, dtype=np.float32), 15)
    assert len(split(repeated, splits=np.repeat([TRAIN, TEST], [285, 15]), train_per_class=10).val) == 47
