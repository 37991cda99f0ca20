"""The import policy: sizes, shapes, modes and orientation; broken files; doubles."""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import class_folders, noise, write_png
from PIL import Image, ImageFile, ImageOps

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.file_names import file_names
from cgankd.data.image_files import MOST_PIXELS, FilePictures
from cgankd.data.importing import plan
from cgankd.data.listing import Plan
from cgankd.data.sources import load


def import_files(paths: list[Path], **settings: object) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 [N, C, H, W] and the notes."""
    pictures = FilePictures(paths)
    shape, notes = plan(pictures.kinds(), DataSettings.model_validate(settings), "here")
    return pictures.read(np.arange(len(paths)), shape, lambda n: None).numpy(), notes


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def colour(seed: int = 0, height: int = 20, width: int = 30) -> Image.Image:
    return Image.fromarray(noise(seed, height, width))


def test_equal_images_come_as_they_are_even_if_not_square(tmp_path: Path) -> None:
    images, notes = import_files([saved(tmp_path / "a.png", colour())])
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0), noise(0, 20, 30))
    assert notes == ()


def test_crop_brings_the_short_side_to_the_size_and_cuts_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = noise(1, 32, 32)
    images, notes = import_files([saved(tmp_path / "a.png", Image.fromarray(pixels))], size=32)
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0), noise(1, 32, 32))
    assert notes == (
        "1 of 1 images was resized to 32x32 pixels (bilinear with antialias; short side to the size, centre crop)",
    )
    tall = saved(tmp_path / "b.png", Image.fromarray(pixels.transpose(1, 0, 2).copy()))
    np.testing.assert_array_equal(import_files([tall], size=32)[0][0].transpose(2, 1, 0), noise(1, 32, 32))


def test_pad_brings_the_long_side_to_the_size_on_black(tmp_path: Path) -> None:
    images, _ = import_files([saved(tmp_path / "a.png", colour(2, 16, 32))], size=32, shape="pad")
    np.testing.assert_array_equal(images[0, :, 8:24].transpose(1, 2, 0), noise(2, 16, 32))
    assert images[0, :, :8].max() == images[0, :, 24:].max() == 0


@pytest.mark.parametrize(("high", "wide"), [(20, 30), (30, 20)])
@pytest.mark.parametrize(("height", "width"), [(50, 40), (40, 50), (17, 90), (10, 15), (33, 47)])
def test_images_are_brought_to_a_shape_that_is_not_square(
    tmp_path: Path, high: int, wide: int, height: int, width: int
) -> None:
    """A student of 20x30 pixels is asked about images of other sizes. Pillow's own fit and pad are the second way."""
    image = colour(3, height, width)
    pictures = FilePictures([saved(tmp_path / "a.png", image)])
    bilinear = Image.Resampling.BILINEAR
    fitted = ImageOps.fit(image, (wide, high), bilinear)
    padded = ImageOps.pad(image, (wide, high), bilinear, color="black")
    for shape, expected in {"crop": fitted, "pad": padded}.items():
        found = pictures.read(np.arange(1), Plan(high, wide, 3, shape), lambda n: None).numpy()
        far = np.abs(found[0].transpose(1, 2, 0).astype(int) - np.asarray(expected))
        assert far.max() <= 1 if shape == "crop" else np.mean(far > 1) < 0.1, (shape, far.max())


def test_reducing_averages_over_all_pixels(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)  # finest checks: mean 127.5
    images, _ = import_files([saved(tmp_path / "a.png", Image.fromarray(board))], size=16)
    assert images.shape == (1, 1, 16, 16)
    assert np.abs(images.astype(int) - 127).max() <= 8


def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    paths = [write_png(tmp_path / f"{n}.png", n, 20, width) for n, width in enumerate([20, 20, 24])]
    with pytest.raises(UserError, match=r"images come in 2 sizes .most often 20x20, 2 of 3.; needed: .* data.size=64"):
        import_files(paths)
    images, notes = import_files(paths, size=20)
    assert images.shape == (3, 3, 20, 20)
    np.testing.assert_array_equal(images[1].transpose(1, 2, 0), noise(1, 20, 20))
    np.testing.assert_array_equal(images[2].transpose(1, 2, 0), noise(2, 20, 24)[:, 2:22])
    assert notes[0].startswith("1 of 3 images was resized to 20x20")


def test_small_images_need_a_size(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", 1, 15, 20)
    with pytest.raises(UserError, match=r"images are 20x15 pixels; allowed: 16 or more.*data.size=16"):
        import_files([path])
    assert import_files([path], size=16)[0].shape == (1, 3, 16, 16)


def test_grey_stays_grey_until_one_image_has_colour(tmp_path: Path) -> None:
    grey = write_png(tmp_path / "grey.png", 1, channels=1)
    bright = write_png(tmp_path / "colour.png", 2)
    assert import_files([grey])[0].shape == (1, 1, 16, 16)
    both, notes = import_files([grey, bright])
    for channel in range(3):
        np.testing.assert_array_equal(both[0, channel], noise(1, channels=1))
    assert notes == ("1 of 2 images is grey and got three equal channels",)
    luma, notes = import_files([grey, bright], channels=1)
    expected = noise(2) @ [0.299, 0.587, 0.114]
    assert np.abs(luma[1, 0] - expected).max() <= 1.0
    assert notes == ("1 of 2 images was converted from colour to grey (ITU-R 601 luma)",)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    images, notes = import_files([saved(tmp_path / "a.png", Image.fromarray(deep))])
    np.testing.assert_array_equal(images[0, 0].ravel(), np.arange(256))
    assert notes == ("1 of 1 images was converted from 16 bits to 8",)


def test_thirty_two_bits_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.zeros((16, 16), np.float32)))
    with pytest.raises(UserError, match=r"a.tif: has 32-bit pixels; allowed: 8 or 16 bits"):
        import_files([path])


def test_transparency_is_put_on_black(tmp_path: Path) -> None:
    pixels = np.dstack([noise(3), np.full((16, 16), 255, np.uint8)])
    pixels[:8, :, 3] = 0
    images, notes = import_files([saved(tmp_path / "a.png", Image.fromarray(pixels))])
    assert images[0, :, :8].max() == 0
    np.testing.assert_array_equal(images[0, :, 8:].transpose(1, 2, 0), noise(3)[8:])
    assert notes == ("1 of 1 images is transparent; black was put behind",)


def test_a_palette_is_colour_and_its_transparent_entry_black(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, 8, 16))
    opaque, _ = import_files([saved(tmp_path / "a.png", image)])
    assert opaque[0, :, 0, 0].tolist() == [255, 0, 0]
    assert opaque[0, :, 0, 15].tolist() == [10, 20, 30]
    clear, _ = import_files([saved(tmp_path / "b.png", image, transparency=0)])
    assert clear[0, :, 0, 0].tolist() == [0, 0, 0]
    assert clear[0, :, 0, 15].tolist() == [10, 20, 30]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    images, notes = import_files([saved(tmp_path / "a.jpg", image, quality=95)])
    assert np.abs(images[0, :, 8, 8].astype(int) - [255, 0, 0]).max() <= 6
    assert notes == ("1 of 1 images was converted from CMYK to RGB",)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Stored as the camera would have: undoing the orientation gives the upright image back."""
    upright = noise(4, 18, 24)
    lying = upright.transpose(1, 0, 2)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: lying, 6: lying[::-1], 7: lying[::-1, ::-1], 8: lying[:, ::-1],
    }[orientation]  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", image, exif=exif, **options)
    images, notes = import_files([path])
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0), upright)
    if suffix != "tif":
        assert len(notes) == (orientation > 1)


def test_exif_orientation_of_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is right in the file is below
    half = np.zeros((16, 32, 3), np.uint8)
    half[:, 16:] = 255
    images, notes = import_files([saved(tmp_path / "a.jpg", Image.fromarray(half), exif=exif, quality=95)])
    assert images.shape == (1, 3, 32, 16)
    assert images[0, :, :14].max() < 20
    assert images[0, :, 18:].min() > 235
    assert notes == ("1 of 1 images was rotated by their EXIF orientation",)


def test_the_first_frame_of_a_moving_image(tmp_path: Path) -> None:
    frames = [Image.new("L", (16, 16), level) for level in (40, 200)]
    images, notes = import_files([saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])])
    assert images.min() == images.max() == 40
    assert notes[0] == "1 of 1 images has several frames, of which the first was used"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def scribble(path: Path) -> None:
    path.write_bytes(b"not an image at all")


def void(path: Path) -> None:
    path.write_bytes(b"")


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "harm"),
    [("jpg", cut), ("png", cut), ("webp", cut), ("png", spoil), ("png", scribble), ("jpg", void)],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_broken_files_are_named(
    tmp_path: Path, suffix: str, harm: Callable[[Path], None], lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    class_folders(tmp_path, {"a": 10, "b": 10}, height=48, width=48)
    broken = saved(tmp_path / "b" / f"x.{suffix}", colour(9, 48, 48))
    harm(broken)
    with pytest.raises(UserError, match=rf"b/x.{suffix}: not readable as an image .*; allowed: complete PNG") as caught:
        load(DataSettings(source=str(tmp_path)))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; --skip-bad (data.skip_bad=true) goes on without")
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for number, side in enumerate([10_000, 60_000]):  # Pillow warns of the first and refuses the second
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        path = tmp_path / f"{number}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
        with pytest.raises(UserError, match=rf"{number}.png: the image has too many pixels; .*{MOST_PIXELS:,}"):
            import_files([path])
    assert not recwarn.list


def test_other_formats_are_not_even_tried(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.eps", colour())
    with pytest.raises(UserError, match="not readable as an image"):
        import_files([path.rename(tmp_path / "a.png")])


def test_many_files_in_order_with_progress(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 150, "b": 50})
    seen: list[tuple[int, int]] = []
    splits = load(DataSettings(source=str(tmp_path)), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (200, 200)
    assert len(seen) >= 4
    assert seen == sorted(seen)
    again = load(DataSettings(source=str(tmp_path)))
    assert splits.train.content_key == again.train.content_key
    assert splits.test.content_key == again.test.content_key


def test_doubles_across_splits_are_told(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 10, "b": 10})
    class_folders(tmp_path / "test", {"a": 3, "b": 3}, seed=500)
    class_folders(tmp_path / "test", {"a": 2}, seed=0)  # overwrites two with training images
    splits = load(DataSettings(source=str(tmp_path), val_size=2, seed=1))
    known = {image.numpy().tobytes() for image in splits.pool.images}
    twice = sum(image.numpy().tobytes() in known for image in splits.test.images)
    assert twice > 0
    assert any(
        note.startswith(f"{twice} different test images are also in the training split") for note in splits.notes
    )
    assert isinstance(splits.test.images, torch.Tensor)


def test_one_image_in_two_classes_is_told_with_its_files(tmp_path: Path) -> None:
    class_folders(tmp_path, {"cat": 10, "dog": 10, "<owl>": 10})
    for number, other in enumerate(("dog", "<owl>", "<owl>")):
        (tmp_path / other / f"copy{number}.png").write_bytes((tmp_path / f"cat/00{number}.png").read_bytes())
    (tmp_path / "cat" / "again.png").write_bytes((tmp_path / "cat/005.png").read_bytes())  # of the same class
    notes = [note for note in load(DataSettings(source=str(tmp_path))).notes if "more than one label" in note]
    (note,) = notes
    start, *pairs = re.split(": |; ", note)
    assert start == "3 images have more than one label, with the same pixels"
    assert pairs[-1] == "and 1 more"
    allowed = {
        frozenset({f"cat/00{n}.png (cat)", f"{c}/copy{n}.png ({c})"}) for n, c in enumerate(("dog", *["<owl>"] * 2))
    }
    assert {frozenset(pair.split(" and ")) for pair in pairs[:-1]} < allowed


def test_one_image_with_two_labels_in_arrays_is_told_by_class(tmp_path: Path) -> None:
    images = np.stack([noise(number) for number in range(20)])
    images[1], images[3], images[4] = images[0], images[2], images[6]  # classes 1 and 0, twice; and the same class
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(20) % 2)
    notes = load(DataSettings(source=str(tmp_path / "set.npz"))).notes
    (note,) = [note for note in notes if "more than one label" in note]
    assert re.fullmatch(r"2 images have .*: (0 and 1|1 and 0) \(\d\)(; (0 and 1|1 and 0) \(\d\))?", note)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(20) / 7)  # scalars may be measured twice
    assert not any("more than one label" in note for note in load(DataSettings(source=str(tmp_path / "set.npz"))).notes)


def test_test_images_have_the_names_of_their_files_and_the_key_does_not(tmp_path: Path) -> None:
    class_folders(tmp_path / "one", {"cat": 10, "dog": 10})
    test = load(DataSettings(source=str(tmp_path / "one"))).test
    stored = [torch.from_numpy(np.array(Image.open(tmp_path / "one" / name))).permute(2, 0, 1) for name in test.files]
    assert torch.equal(torch.stack(stored), test.images[:])
    assert test.take(torch.tensor([2, 0])).files == (test.files[2], test.files[0])
    assert dataclasses.replace(test, files=()).content_key == test.content_key


def test_names_of_files_are_relative_to_the_source_and_on_one_line(tmp_path: Path) -> None:
    inside, outside = tmp_path / "a" / "x\ny.png", Path("/elsewhere/z.png")
    assert file_names(FilePictures([inside, outside]), [1, 0], str(tmp_path)) == ("z.png", "a/x\\ny.png")
