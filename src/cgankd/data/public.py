"""Public data sets that the package can't include: where they are on this machine, and where to fetch them.

A data set is in ``$CGANKD_DATA``/NAME (default ``~/.cache/cgankd/data``/NAME) or where a Debian package puts it, in the
layout that its authors publish.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.numbers import counted
from cgankd.data.listing import Listing
from cgankd.tasks import Regression

VARIABLE = "CGANKD_DATA"
SYSTEM = Path("/usr/share/datasets")  # the folder of Debian's packages dataset-NAME
ROUNDING = 1e-3  # labels are stored rounded; a label this far outside the range counts as inside


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file with a public address. Digests are hexadecimal; size is in bytes."""

    address: str
    size: int
    md5: str  # from the data set's page
    sha256: str

    @property
    def name(self) -> str:
        return self.address.rsplit("/", 1)[-1]


@dataclasses.dataclass(frozen=True)
class Public:
    """What a user has to fetch: "fetch WHAT from PAGE". archive: None where no command can fetch it.

    package: Debian's package of it; "": there is none.
    """

    what: str
    page: str
    archive: Archive | None = None
    package: str = ""


CCGAN = "the links of https://github.com/UBCDingXin/improved_CcGAN"
CGAN_KD = "the links of https://github.com/UBCDingXin/cGAN-KD"
PUBLIC = {
    "fashion-mnist": Public(
        "the folder data/fashion (four .gz files)",
        "https://github.com/zalandoresearch/fashion-mnist",
        package="dataset-fashion-mnist",
    ),
    # The SHA-256 digests are from TensorFlow Datasets and Julia's MLDatasets, which use the same files.
    "cifar10": Public(
        "cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            170_052_171,
            "c32a1d4ab5d03f1284b67883e8d87530",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    "cifar100": Public(
        "cifar-100-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            168_513_733,
            "03b5dce01913d631647c71ecec9e9cb8",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    "tiny-imagenet": Public(
        "tiny-imagenet-200.zip (and unpack it)", "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    ),
    "imagenet-100": Public(
        "ImageNet_128x128_100Class.h5 (or train/ and val/ with a folder for each of 100 ImageNet classes)", CGAN_KD
    ),
    "rc49": Public("RC-49_64x64.h5", CCGAN),
    "utkface": Public(
        "UTKFace_64x64_prop_0.8.h5 (or the aligned and cropped folder of https://susanqq.github.io/UTKFace)",
        CGAN_KD,
    ),
    "steering-angle": Public(
        "SteeringAngle_64x64_prop_0.8.h5 (or a folder with data.txt of https://github.com/SullyChen/driving-datasets)",
        CGAN_KD,
    ),
}


def home() -> Path:
    """The folder of all public data sets."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/cgankd/data").expanduser()


def folders(name: str, home: Path) -> tuple[Path, ...]:
    """Where the data set may be, the user's own folder first."""
    return home / name, SYSTEM / name


def find(name: str, *patterns: str) -> Path:
    """The first path in the data set's folders that matches a pattern, in the order of the folders, then the patterns.

    Raises UserError that says what to fetch, from where, and where to put it.
    """
    for folder in folders(name, home()):
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                return path
    raise UserError(f"data.source {name!r} is not in {home() / name}; {how_to_get(name, home())}")


def how_to_get(name: str, home: Path) -> str:
    """Part of a sentence: what to fetch, from where, and where to put it."""
    data_set = PUBLIC[name]
    if data_set.archive is not None:
        return f"cgankd data get {name} fetches it, or put {data_set.what} from {data_set.page} there"
    own = f"fetch {data_set.what} from {data_set.page} and put it into {home / name} ({VARIABLE} sets another folder)"
    return f"{own}, or install Debian's package {data_set.package}" if data_set.package else own


def check_columns(name: str, settings: DataSettings, *groups: str) -> None:
    """UserError for columns that the data set doesn't have. groups: allowed values of ``data.group_column``."""
    if settings.label_column is not None:
        raise UserError(f"data.label_column={settings.label_column!r} is for metadata.csv; {name} has its own labels")
    if settings.group_column is not None and settings.group_column not in groups:
        allowed = f"allowed: {', '.join(groups)}" if groups else "it has none"
        raise UserError(f"data.group_column={settings.group_column!r} is not a column of {name}; {allowed}")


def count_note(count: int, published: int, one: str, more: str) -> tuple[str, ...]:
    """A note where a count differs from the published data set: a subset is allowed, but never silent.

    >>> count_note(1, 10_000, "test image", "test images"), count_note(10_000, 10_000, "test image", "test images")
    (('1 test image; the published data set has 10,000',), ())
    """
    return () if count == published else (f"{counted(count, one, more)}; the published data set has {published:,}",)


def scalar(listing: Listing, task: Regression) -> Listing:
    """The rows whose label is in the task's range, as float32; a note says how many were left out.

    Raises UserError for labels that are not finite numbers, or where no row is left.
    """
    raw = np.asarray(listing.labels)
    if raw.dtype.kind not in "biuf":
        raise UserError(f"{listing.where}: labels are {raw.dtype}; allowed: numbers ({task.unit})")
    values = raw.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise UserError(f"{listing.place(int(bad[0]))}: label {values[bad[0]]} is not finite; allowed: finite numbers")
    inside = np.flatnonzero((values >= task.low - ROUNDING) & (values <= task.high + ROUNDING))
    span = f"{task.low:g} to {task.high:g} {task.unit}"
    if not len(inside):
        raise UserError(f"{listing.where}: no label is in {span}")
    left = len(values) - len(inside)
    labels = values[inside].clip(task.low, task.high).astype(np.float32)
    note = f"labels of {left:,} of {len(values):,} images are outside {span}; these images were left out"
    return dataclasses.replace(
        listing.keep(inside), labels=labels, task=task, notes=(*listing.notes, *(note,) * (left > 0))
    )
