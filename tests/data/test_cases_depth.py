"""Images of 16 bits of which fewer are in use."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pictures import class_folders, read, refuses
from PIL import Image

from cgankd.core.errors import UserError
from cgankd.data.imageset import Splits
from cgankd.data.sources import load_whole
from cgankd.tasks import Classification

COUNT = 24


def deep(most: int, number: int, *shape: int) -> np.ndarray:
    """uint16 of values up to ``most``, which the last image alone reaches."""
    values = np.random.default_rng(number).integers(0, most * 7 // 8, shape or (20, 20), dtype=np.uint16)
    if number == COUNT - 1:
        values.flat[5] = most
    return values


def folder_of(folder: Path, most: int, suffix: str = ".png") -> Path:
    for number in range(COUNT):
        path = folder / "ab"[number % 2] / f"{number:02}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(deep(most, number)).save(path)
    return folder


def colour_png(path: Path, values: np.ndarray) -> None:
    """uint16 [H, W, 3] as a PNG of 16 bits per colour, which Pillow reads but can't write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def pixels(splits: Splits) -> set[bytes]:
    images = torch.cat([splits.pool.images, splits.val.images, splits.test.images])
    return {image.numpy().tobytes() for image in images}


def expected(most: int, bits: int) -> set[bytes]:
    """Each value as a share of the largest that so many bits hold, in 255ths."""
    return {
        np.floor(deep(most, n).astype(np.float64) * 255 / (2**bits - 1) + 0.5).astype(np.uint8).tobytes()
        for n in range(COUNT)
    }


@pytest.mark.parametrize(
    ("most", "bits"), [(1023, 10), (1000, 10), (4095, 12), (3000, 12), (16383, 14), (5000, 14), (255, 8), (200, 8)]
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_bits_in_use_are_measured_over_the_whole_set(tmp_path: Path, most: int, bits: int, suffix: str) -> None:
    splits = read(folder_of(tmp_path, most, suffix))
    assert pixels(splits) == expected(most, bits)
    assert (
        f"24 images of 16 bits use {bits} of them (the largest value is {most:,}; data.bits=16 uses all 16): the "
        f"value {2**bits - 1:,} became white" in splits.notes
    )


@pytest.mark.parametrize("most", [65535, 40000, 16384])
def test_images_that_fill_16_bits_stay_as_they_are(tmp_path: Path, most: int) -> None:
    splits = read(folder_of(tmp_path, most))
    old = {((deep(most, n).astype(np.int64) + 128) // 257).astype(np.uint8).tobytes() for n in range(COUNT)}
    assert pixels(splits) == old == expected(most, 16)
    assert not any("in use" in note for note in splits.notes)
    assert "24 of 24 images were converted from 16 bits to 8" in splits.notes


def test_the_setting_beats_the_measurement(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 900)
    assert pixels(read(folder, bits=12)) == expected(900, 12)
    assert pixels(read(folder, bits=16)) == expected(900, 16)
    assert any("(by data.bits): the value 4,095 became white" in note for note in read(folder, bits=12).notes)
    refuses(r"23.png: holds the value 900; allowed: at most 511, because data.bits=9", folder, bits=9)


def test_the_setting_is_refused_where_nothing_has_16_bits(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 10, "b": 10})
    refuses("data.bits=12, but .* has no image of 16 bits; leave data.bits out", tmp_path, bits=12)
    assert len(read(tmp_path, bits=8).test) == 4


def test_images_of_8_bits_among_them_stay_as_they_are(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 4095)
    eight = np.arange(400, dtype=np.uint8).reshape(20, 20)
    Image.fromarray(eight).save(folder / "a" / "eight.png")
    splits = read(folder)
    assert pixels(splits) == expected(4095, 12) | {eight.tobytes()}


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_arrays_of_16_bits(tmp_path: Path, suffix: str, channels: int, dtype: str) -> None:
    images = np.stack([deep(4095, n, channels, 20, 20) for n in range(COUNT)])
    arrays: dict[str, Any] = {"images": images.astype(dtype), "labels": np.arange(COUNT) % 2}
    path = tmp_path / f"set{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    splits = read(path)
    assert pixels(splits) == {np.floor(im * (255 / 4095) + 0.5).astype(np.uint8).tobytes() for im in images}
    assert any("24 images of 16 bits use 12 of them" in note for note in splits.notes)
    refuses(r"array 'images': holds the value 4,095; allowed: at most 1,023", path, bits=10)


def test_the_opacity_of_arrays_is_of_16_bits_whatever_the_colours_use(tmp_path: Path) -> None:
    images = np.stack([deep(1023, n, 20, 20, 4) for n in range(COUNT)])
    images[..., 3] = 65535
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(COUNT) % 2)
    splits = read(tmp_path / "set.npz")
    assert any("24 images of 16 bits use 10 of them" in note for note in splits.notes)
    colours = np.floor(images[..., :3] * (255 / 1023) + 0.5).astype(np.uint8).transpose(0, 3, 1, 2)
    assert pixels(splits) == {image.tobytes() for image in colours}


def test_colour_files_whose_lower_bits_can_not_be_read(tmp_path: Path) -> None:
    for number in range(COUNT):
        colour_png(tmp_path / "dark" / "ab"[number % 2] / f"{number}.png", deep(4095, number, 20, 20, 3))
        colour_png(tmp_path / "full" / "ab"[number % 2] / f"{number}.png", deep(65535, number, 20, 20, 3))
    refuses(
        r"has 16 bits per colour, of which the set uses 12, and only the upper 8 can be read; .*data.bits=16",
        tmp_path / "dark",
    )
    assert 10 < read(tmp_path / "dark", bits=16).train.images.max() <= 15
    splits = read(tmp_path / "full")
    assert splits.train.channels == 3
    assert "24 of 24 images were converted from 16 bits to 8" in splits.notes


def test_ready_images_of_fewer_bits_are_refused(tmp_path: Path) -> None:
    task = Classification(("a", "b"))
    with pytest.raises(UserError, match=r"images of 16 bits use 12 of them; allowed: images of 8 bits"):
        load_whole(str(folder_of(tmp_path / "a", 4095)), task, 1, (20, 20), "generator.source")
    found = load_whole(str(folder_of(tmp_path / "b", 65535)), task, 1, (20, 20), "generator.source")
    assert len(found) == COUNT
