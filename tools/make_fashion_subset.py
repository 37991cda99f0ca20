"""Makes src/cgankd/data/builtin/fashion.npz: 400 training and 200 test images of each Fashion-MNIST class.

    apt-get install dataset-fashion-mnist
    python tools/make_fashion_subset.py /usr/share/datasets/fashion-mnist src/cgankd/data/builtin/fashion.npz

The folder holds the four gzip IDX files as Zalando published them. Of each class the first images in the file's own
order are taken, leaving out any that was taken already (Fashion-MNIST has a few doubles), so the result is the same
on every machine, to the byte for one version of NumPy and zlib.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from cgankd.data.fashion_mnist import PREFIXES, read_part

PER_CLASS = {"train": 400, "test": 200}


def first_rows(images: np.ndarray, labels: np.ndarray, per_class: int, seen: set[bytes]) -> list[int]:
    """The first ``per_class`` rows of each class whose image is not yet in ``seen``, which is added to."""
    left = dict.fromkeys(range(10), per_class)
    rows = []
    for row, label in enumerate(labels.tolist()):
        content = hashlib.blake2b(images[row].tobytes(), digest_size=16).digest()
        if left[label] and content not in seen:
            seen.add(content)
            left[label] -= 1
            rows.append(row)
    if any(left.values()):
        raise ValueError(f"too few images: still wanted, by class: {left}")
    return rows


def main(folder: Path, target: Path) -> None:
    """Writes the subset of the data set in ``folder`` to ``target``."""
    arrays: dict[str, np.ndarray] = {}
    seen: set[bytes] = set()
    for (split, per_class), prefix in zip(PER_CLASS.items(), PREFIXES, strict=True):
        images, labels = read_part(folder, prefix)
        rows = first_rows(images, labels, per_class, seen)
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images[rows], labels[rows].astype(np.uint8)
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    print(f"{target}: {target.stat().st_size:,} bytes, {len(arrays['y_train'])} + {len(arrays['y_test'])} images")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make_fashion_subset.py FOLDER-OF-THE-IDX-FILES TARGET.npz")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
