"""Small files in the layouts that the public data sets are published in, with known content."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import h5py
import numpy as np
from pictures import noise
from PIL import Image

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_jpeg(path: Path, seed: int, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, side, side)).save(path, "JPEG")


def cifar_records(labels: list[int], seed: int, coarse: bool = False) -> bytes:
    """Record r: (a coarse label,) labels[r], then 3,072 bytes, red first, rows from the top."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    head = [bytes([label // 5, label]) if coarse else bytes([label]) for label in labels]
    return b"".join(first + row.tobytes() for first, row in zip(head, pixels, strict=True))


def cifar10(folder: Path, per_class: int = 4) -> Path:
    """cifar-10-batches-bin: five batches and a test batch, every class ``per_class`` times in each."""
    inner = folder / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    labels = [label for label in range(10) for _ in range(per_class)]
    for number in range(1, 6):
        (inner / f"data_batch_{number}.bin").write_bytes(cifar_records(labels, number))
    (inner / "test_batch.bin").write_bytes(cifar_records(labels, 99))
    (inner / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    return inner


def packed(folder: Path, target: Path) -> Path:
    """``folder`` as target.tar.gz, as the archives of the Toronto page are."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, folder.name)
    return target


def cifar100(folder: Path) -> Path:
    inner = folder / "cifar-100-binary"
    inner.mkdir(parents=True)
    labels = [label for label in range(100) for _ in range(3)]
    (inner / "train.bin").write_bytes(cifar_records(labels, 1, coarse=True))
    (inner / "test.bin").write_bytes(cifar_records(labels[::3], 2, coarse=True))
    (inner / "fine_label_names.txt").write_text("".join(f"fine_{number:02}\n" for number in range(100)))
    return inner


def idx(values: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes, gzipped."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes())


def fashion_mnist(folder: Path, per_class: int = 4) -> Path:
    """The four files; each class ``per_class`` times in training and twice in the test. The first pixel is the row."""
    folder.mkdir(parents=True)
    for seed, (prefix, count) in enumerate((("train", per_class), ("t10k", 2))):
        labels = np.tile(np.arange(10), count)
        images = np.random.default_rng(seed).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        images[:, 0, 0] = np.arange(len(labels))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    return folder


def tiny_imagenet(folder: Path, classes: int = 3, per_class: int = 8) -> Path:
    root = folder / "tiny-imagenet-200"
    lines = []
    for number in range(classes):
        wnid = f"n0000000{number}"
        for image in range(per_class):
            write_jpeg(root / "train" / wnid / "images" / f"{wnid}_{image}.JPEG", 100 * number + image)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t15\t15\n")
    for image in range(classes * 2):
        write_jpeg(root / "val" / "images" / f"val_{image}.JPEG", 5000 + image)
        lines.append(f"val_{image}.JPEG\tn0000000{image % classes}\t0\t0\t15\t15")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    write_jpeg(root / "test" / "images" / "test_0.JPEG", 1)
    return root


def rc49(path: Path, chairs: int = 4, angles: int = 40) -> Path:
    """Chair c at 0.1, 0.2 ... degrees; the first pixel's red says the chair, its green the angle's number."""
    count = chairs * angles
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
    tenths = np.tile(np.arange(1, angles + 1), chairs)
    types = np.repeat(np.arange(chairs), angles)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = types, tenths
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["images"], file["types"] = images, types
        file["labels"] = tenths * 0.1  # 0.30000000000000004 and its like, as angles in floating point are
        file["indx_train"] = np.flatnonzero(tenths % 2 == 1)
    return path


def split_h5(path: Path, train: np.ndarray, test: np.ndarray, ends: tuple[str, str] = ("train", "test")) -> Path:
    """images_ and labels_ of two parts, uint8 [N, 3, 64, 64]; the first pixel's red is the row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for part, (end, labels) in enumerate(zip(ends, (train, test), strict=True)):
            images = np.random.default_rng(part).integers(0, 256, (len(labels), 3, 64, 64), dtype=np.uint8)
            images[:, 0, 0, 0] = np.arange(len(labels))
            file[f"images_{end}"], file[f"labels_{end}"] = images, labels
    return path


def cuboid(path: Path, width: float, height: float, depth: float) -> Path:
    """A cuboid as .obj with .mtl: red sides, a blue top."""
    x, y, z = width / 2, height / 2, depth / 2
    corners = [(sx * x, sy * y, sz * z) for sx in (-1, 1) for sy in (-1, 1) for sz in (-1, 1)]
    sides = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (1, 3, 7, 5), (2, 6, 8, 4)]
    lines = [f"mtllib {path.stem}.mtl", *(f"v {a} {b} {c}" for a, b, c in corners), "usemtl red"]
    lines += ["f " + " ".join(map(str, side)) for side in sides]
    lines += ["usemtl blue", "f 3 4 8 7"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
    return path
