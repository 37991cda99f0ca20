"""Split rows into labelled images, further images that a teacher may be trained on, validation and test.

The source's own splits are kept. Otherwise rows are drawn by class (or by tenth of the scalar labels), in whole
groups, in an order that depends on (seed, number of the row) alone. The test split is drawn first, then validation from
the training rows, then the labelled images from the remaining training rows.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt
import torch

from cgankd.config.settings import DataSettings
from cgankd.core import rng
from cgankd.core.errors import UserError
from cgankd.core.numbers import as_part, counted
from cgankd.data.listing import TEST, TRAIN, VAL, Ints, Listing

QUANTILES = 10  # scalar labels are drawn evenly from this many ranges with equally many images
FEWEST = 10  # training images, with those for validation
# Validation images by which settings can be chosen: the standard error of an accuracy is 5 points at most, that of a
# mean absolute error about 8 % of it; each of the two halves that check the density ratio holds 50.
USEFUL = 100
LARGEST_SHARE = 3  # a third of the training split at most, because these images train nothing
FEW_GROUPS = 5  # validation groups, below which the score depends on single groups


@dataclasses.dataclass(frozen=True)
class Division:
    """Disjoint rows, each sorted. train: labelled images. rest: training rows that are neither train nor val."""

    train: Ints
    rest: Ints
    val: Ints
    test: Ints
    notes: tuple[str, ...]


def divide(listing: Listing, labels: npt.NDArray[np.generic], settings: DataSettings) -> Division:
    """Rows of each split. labels: int64 [N] classes or scalars [N].

    Raises UserError where there are fewer images, classes or groups than the settings ask for.
    """
    where, seed, groups = listing.where, settings.seed, listing.groups
    if settings.train_size is not None and settings.train_per_class is not None:
        raise UserError("data.train_size and data.train_per_class are both set; allowed: one of them")
    notes: list[str] = []
    test, val = np.flatnonzero(listing.splits == TEST), np.flatnonzero(listing.splits == VAL)
    training = np.flatnonzero(listing.splits == TRAIN)
    if len(training) < FEWEST:
        raise UserError(f"{where}: has {len(training)} training images; at least {FEWEST} are needed")
    if not len(test):
        wanted = round(settings.test_fraction * len(training))
        test = _part(training, labels, listing, wanted, seed, "test")
        training = np.setdiff1d(training, test)
        notes.append(f"the source has no test split, so {counted(len(test), 'image was', 'images were')} drawn for it")
    elif settings.test_fraction != DataSettings().test_fraction:
        raise UserError(
            f"data.test_fraction={settings.test_fraction:g}, but {where} has its own test split of {len(test):,} "
            "images; leave test_fraction out, or remove that split"
        )
    if not len(val):
        wanted = settings.val_size or _usual_val_size(labels[training], settings)
        val = _part(training, labels, listing, wanted, seed, "validation")
        training = np.setdiff1d(training, val)
        if len(val) != wanted:
            why = "no class loses its last image" if groups is None else "groups are not divided"
            notes.append(
                f"validation has {counted(len(val), 'image', 'images')} ({wanted:,} were wanted), because {why}"
            )
    elif settings.val_size is not None:
        raise UserError(
            f"data.val_size={settings.val_size}, but {where} has its own validation split of {len(val):,} "
            "images; leave val_size out, or remove that split"
        )
    if settings.val_size is None:
        notes += _uncertain(val, labels, groups)
    train = _labelled(training, labels, listing, settings)
    if groups is not None:
        notes.extend(_divided_groups(groups, {"train": training, "val": val, "test": test}))
    return Division(train, np.setdiff1d(training, train), val, test, tuple(notes))


def _usual_val_size(labels: npt.NDArray[np.generic], settings: DataSettings) -> int:
    """A tenth of the labelled images, at least ``USEFUL`` and one per class, at most a third of the training split.

    It gives way to the asked number of labelled images, down to a tenth of them or ``FEWEST``.
    """
    labelled, classes = len(labels), 0
    most = len(labels) // LARGEST_SHARE
    whole = np.issubdtype(labels.dtype, np.integer)
    if settings.train_size is not None:
        labelled = min(labelled, settings.train_size)
        most = min(most, len(labels) - labelled)
    elif settings.train_per_class is not None:
        sizes = np.unique(labels, return_counts=True)[1]
        labelled = min(labelled, settings.train_per_class * len(sizes))
        room = len(labels) * max(0, int(sizes.min()) - settings.train_per_class) // int(sizes.min())
        most = min(most, room if whole else room // 2)  # from scalars not the same number of each label is drawn
    if whole:
        classes = len(np.unique(labels))
    least = min(max(round(labelled / 10), FEWEST, classes), len(labels) // 4)
    return max(1, least, min(USEFUL, most))


def _uncertain(val: Ints, labels: npt.NDArray[np.generic], groups: Ints | None) -> list[str]:
    """A note where the validation score is not precise enough to choose by."""
    notes = []
    if 0 < len(val) < USEFUL:
        classes = np.issubdtype(labels.dtype, np.integer)
        error = (
            f"up to {50 / len(val) ** 0.5:.0f} points of accuracy"
            if classes
            else f"about {as_part(0.76 / len(val) ** 0.5)} of the mean absolute error"
        )
        few = counted(len(val), "image", "images")
        notes.append(f"validation has only {few}, so a choice by its score may be chance (standard error: {error})")
    if groups is not None and 0 < (count := len(np.unique(groups[val]))) < FEW_GROUPS:
        notes.append(f"validation has images of {counted(count, 'group', 'groups')} only, so its score depends on them")
    return notes


def _numbers(listing: Listing) -> Ints:
    """The number of each row, by which rows are drawn: only training rows count, so that other images in a test or
    validation split of the source change no draw. Built-in sets do not change; there the number is the row."""
    if listing.task is not None:
        return np.arange(len(listing.splits))
    return np.asarray(np.cumsum(listing.splits == TRAIN) - 1, dtype=np.int64)


def _part(rows: Ints, labels: npt.NDArray[np.generic], listing: Listing, wanted: int, seed: int, name: str) -> Ints:
    where, groups = listing.where, listing.groups
    units = len(rows) if groups is None else len(np.unique(groups[rows]))
    if units < 2:
        raise UserError(
            f"{where}: all training images are of one group, so the {name} split can't be drawn without dividing "
            "the group; at least two groups are needed"
        )
    if wanted > len(rows) - 2:
        raise UserError(
            f"{where}: {wanted:,} of {len(rows):,} images are wanted for the {name} split; "
            f"allowed: at most {len(rows) - 2:,}"
        )
    return hold_out(rows, labels, groups, max(1, wanted), seed, f"split/{name}", _numbers(listing))


def hold_out(
    rows: Ints,
    labels: npt.NDArray[np.generic],
    groups: Ints | None,
    count: int,
    seed: int,
    stream: str,
    numbers: Ints | None = None,
) -> Ints:
    """About ``count`` of ``rows`` (exactly ``count`` without groups), sorted, in proportion to classes or label tenths.

    No class loses its last row (with groups: its last group). numbers: of all rows, as :func:`_numbers` gives them;
    None: the rows themselves.
    """
    order = _shuffled(rows, seed, stream, np.arange(len(labels)) if numbers is None else numbers)
    strata = _strata(labels[order])
    if groups is None:
        quotas = _shares(np.bincount(strata), count)
        return np.sort(order[rank_within(strata) < quotas[strata]])
    return np.sort(order[_whole_groups(groups[order], strata, count)])


def _whole_groups(groups: Ints, strata: Ints, count: int) -> npt.NDArray[np.bool_]:
    """Rows of groups, taken in the given order so that the counts per stratum are close to their shares."""
    _, first, members = np.unique(groups, return_index=True, return_inverse=True)
    tables = np.zeros((len(first), int(strata.max()) + 2))  # [groups, strata and, last, their sum]
    np.add.at(tables, (members, strata), 1.0)
    tables[:, -1] = tables.sum(axis=1)
    left = tables.sum(axis=0)
    share = left * (count / len(groups))
    have = np.zeros_like(share)
    taken = np.zeros(len(first), dtype=bool)

    def distance(group: int) -> float:
        return float(np.square(have + tables[group] - share).sum())

    def exceeds_none(group: int) -> bool:
        return bool((have + tables[group] <= share + 1e-9).all())

    def keeps_all_strata(group: int) -> bool:  # whether every stratum still has a row without the group
        return bool(((left - tables[group] > 0) | (tables[group] == 0)).all())

    in_order = np.argsort(first)
    for may_exceed in (False, True):  # first groups that exceed no share, then groups that reduce the distance
        for group in in_order[~taken[in_order]]:
            fits = distance(group) < np.square(have - share).sum() if may_exceed else exceeds_none(group)
            if fits and keeps_all_strata(group):
                taken[group], have, left = True, have + tables[group], left - tables[group]
    if not taken.any():  # every group is more than twice too large: take the closest one
        candidates = [group for group in in_order if keeps_all_strata(group)] or list(in_order)
        taken[min(candidates, key=distance)] = True
    return np.asarray(taken[members])


def _labelled(rows: Ints, labels: npt.NDArray[np.generic], listing: Listing, settings: DataSettings) -> Ints:
    """The training rows that become labelled images."""
    if settings.train_per_class is not None:
        return _per_label(rows, labels, listing, settings, settings.train_per_class)
    if settings.train_size is None or settings.train_size == len(rows):
        return rows
    count = settings.train_size
    if count > len(rows):
        raise UserError(
            f"data.train_size={count}, but the training split of {listing.where} has {len(rows):,} images "
            "left after validation"
        )
    classes = len(np.unique(labels[rows])) if np.issubdtype(labels.dtype, np.integer) else 0
    if count < classes:
        raise UserError(
            f"data.train_size={count}, but there are {classes} classes; at least one image of each is needed"
        )
    order = _shuffled(rows, settings.seed, "split/owner", _numbers(listing))
    turn = np.zeros(len(order), np.int64) if listing.turn is None else listing.turn[order]
    chosen: list[Ints] = []
    for level in np.unique(turn):  # all first views before any second view
        candidates = order[turn == level]
        strata = _strata(labels[candidates])
        quotas = _even(np.bincount(strata), min(count, len(candidates)))
        chosen.append(candidates[rank_within(strata) < quotas[strata]])
        count -= len(chosen[-1])
    return np.sort(np.concatenate(chosen))


def _per_label(
    rows: Ints, labels: npt.NDArray[np.generic], listing: Listing, settings: DataSettings, count: int
) -> Ints:
    order = _shuffled(rows, settings.seed, "split/owner", _numbers(listing))
    if listing.turn is not None:
        order = order[np.argsort(listing.turn[order], kind="stable")]
    values, strata = np.unique(labels[order], return_inverse=True)
    sizes = np.bincount(strata)
    if sizes.min() < count:
        rarest = values[sizes.argmin()]
        name = listing.class_names[int(rarest)] if listing.class_names else str(rarest)
        raise UserError(
            f"data.train_per_class={count}, but label {name} of {listing.where} has {sizes.min()} training "
            "images left after validation"
        )
    return np.sort(order[rank_within(strata) < count])


def _shuffled(rows: Ints, seed: int, stream: str, numbers: Ints) -> Ints:
    """Rows in an order that depends on (seed, stream, number of the row) alone."""
    bits = rng.bits(seed, stream, torch.from_numpy(numbers[rows].astype(np.int64))).numpy()
    return np.asarray(rows[np.argsort(bits, kind="stable")])


def _strata(labels: npt.NDArray[np.generic]) -> Ints:
    """The class of each row, numbered from 0, or its tenth of the labels."""
    if np.issubdtype(labels.dtype, np.integer):
        return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)
    ranks = np.empty(len(labels), np.int64)
    ranks[np.argsort(labels, kind="stable")] = np.arange(len(labels))
    return np.asarray(ranks * QUANTILES // max(1, len(labels)))


def rank_within(strata: Ints) -> Ints:
    """For each row, how many earlier rows have the same stratum."""
    order = np.argsort(strata, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(strata))[:-1]])
    ranks = np.empty(len(strata), np.int64)
    ranks[order] = np.arange(len(strata)) - starts[strata[order]]
    return ranks


def _shares(sizes: Ints, count: int) -> Ints:
    """``count`` in proportion to the sizes: at least 1 of each stratum if possible, never all of one."""
    room = np.maximum(sizes - 1, 0)
    exact = sizes * (count / max(1, sizes.sum()))
    quotas = np.minimum(exact.astype(np.int64), room)
    if count >= (room > 0).sum():
        quotas = np.maximum(quotas, np.minimum(room, 1))
    while quotas.sum() > count:
        quotas[np.argmax(np.where(quotas > 1, quotas - exact, -np.inf))] -= 1
    while quotas.sum() < min(count, room.sum()):
        quotas[np.argmax(np.where(quotas < room, exact - quotas, -np.inf))] += 1
    return np.asarray(quotas)


def _even(sizes: Ints, count: int) -> Ints:
    """``count`` divided as evenly as the sizes allow; the remainder goes to the first strata."""
    quotas = np.zeros_like(sizes)
    while (left := count - int(quotas.sum())) > 0:
        open_ = np.flatnonzero(quotas < sizes)
        quotas[open_] += np.minimum(sizes[open_] - quotas[open_], left // len(open_))
        if left < len(open_):
            quotas[open_[:left]] += 1
    return quotas


def _divided_groups(groups: Ints, splits: dict[str, Ints]) -> list[str]:
    """A note for each pair of splits that have groups in common."""
    notes = []
    for first, second in itertools.combinations(splits, 2):
        common = np.intersect1d(groups[splits[first]], groups[splits[second]])
        if len(common):
            are = counted(len(common), "group is", "groups are")
            notes.append(f"{are} in both {first} and {second}, because the source splits them so")
    return notes
