"""One odd image file among twenty good ones: broken, under a wrong name, of every size and orientation."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_inputs import SIDE, Case, good_folders, good_png, has, holds
from PIL import Image, PngImagePlugin

NOT_AN_IMAGE = "b/x.{}: not readable as an image ("
TOO_LARGE = "b/x.{}: the image has too many pixels; allowed: at most 89,478,485"
RAMP = np.arange(256, dtype=np.uint8).reshape(SIDE, SIDE)  # every grey value once
COLOURS = np.dstack([RAMP, RAMP[::-1], RAMP.T])
SMOOTH = np.dstack([np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 8 % 256] * 3).astype(np.uint8)  # JPEG keeps it


def among_good(content: bytes | Callable[[Path], object], suffix: str = "png") -> Callable[[Path], Path]:
    """Class folders with twenty good images and b/x.SUFFIX of this content."""

    def make(folder: Path) -> Path:
        path = good_folders(folder) / "b" / f"x.{suffix}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        return folder

    return make


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(stream, kind, **options)
    return stream.getvalue()


def read_as(content: bytes, expected: np.ndarray, suffix: str = "png", tolerance: int = 0, **settings: object) -> Case:
    return Case(among_good(content, suffix), check=holds(expected, tolerance), settings=settings)


def refused(content: bytes | Callable[[Path], object], suffix: str = "png", why: str = "", **settings: object) -> Case:
    return Case(among_good(content, suffix), refused=NOT_AN_IMAGE.format(suffix) + why, settings=settings)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes | None, *extra: bytes, late: bytes = b""
) -> bytes:
    """A PNG by hand, of depths and kinds that Pillow does not write. extra: chunks before the pixels; late: after."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = b"" if rows is None else chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + late + chunk(b"IEND", b"")


def lines(values: np.ndarray) -> bytes:
    """Rows of a PNG without filters: values [H, bytes] of uint8."""
    return b"".join(b"\0" + row.tobytes() for row in values)


def exif(orientation: object) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


# --- broken -------------------------------------------------------------------------------------------------------

FORMATS = {
    "png": "PNG",
    "jpg": "JPEG",
    "webp": "WEBP",
    "bmp": "BMP",
    "gif": "GIF",
    "tif": "TIFF",
    "ppm": "PPM",
}
NOISE = np.random.default_rng(3).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def _cut(kind: str, share: float) -> bytes:
    content = encoded(NOISE, kind)
    return content[: int(len(content) * share)]


def broken() -> dict[str, Case]:
    cases = {}
    for suffix, kind in FORMATS.items():
        for share in (0.02, 0.3, 0.7, 0.97):
            cases[f"{suffix} cut at {share:.0%}"] = refused(_cut(kind, share), suffix, size=16)
    whole = encoded(COLOURS, "PNG")
    data = whole.index(b"IDAT")
    cases |= {
        "png with a flipped byte in its pixels": refused(whole[: data + 30] + b"\xff\xfe" + whole[data + 32 :]),
        "png with a wrong checksum of its header": refused(whole[:29] + b"\0\0\0\0" + whole[33:]),
        "png without pixels": refused(png(16, 16, 8, 0, None)),
        "png with half of its rows": refused(png(16, 16, 8, 0, lines(RAMP)[:120])),
        "png of width zero": refused(png(0, 16, 8, 0, b"")),
        "png of an unknown bit depth": refused(png(16, 16, 7, 0, lines(RAMP))),
        "png with numbers of colours and no palette": Case(
            among_good(png(16, 16, 8, 3, lines(RAMP))), refused="b/x.png: has no palette, which its pixels need"
        ),
        "png with a text chunk that unpacks to 3 MB": refused(
            png(16, 16, 8, 0, lines(RAMP), chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(3_000_000), 9)))
        ),
        "jpg with its second half zero": refused(_zeroed(encoded(NOISE, "JPEG")), "jpg", size=16),
        "gif of height zero": refused(b"GIF89a\x10\0\0\0\0\0\0,\0\0\0\0\x10\0\0\0\0\x02\x00;", "gif"),
        "an empty png": refused(b""),
        "an empty jpg": refused(b"", "jpg"),
        "a file of zeros": refused(bytes(5000)),
        "ppm that promises more than it holds": refused(b"P6 16 16 255\n" + bytes(100), "ppm"),
        "ppm of a negative size": refused(b"P6 -16 16 255\n" + bytes(768), "ppm"),
        "ppm of letters": refused(b"P3 16 16 255\n" + b"a " * 768, "ppm"),
        "pgm whose values exceed its maximum": refused(b"P2 16 16 15\n" + b"200 " * 256, "pgm"),
        "tif whose directory is elsewhere": refused(b"II*\0\xff\xff\xff\x7f" + bytes(50), "tif"),
        "tif whose directory repeats for ever": refused(b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0", "tif"),
        "bmp of a negative width": Case(among_good(_bmp(-16, 16), "bmp"), refused=TOO_LARGE.format("bmp")),
        "webp that lies about its length": refused(b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(40), "webp"),
    }
    return cases


def _zeroed(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half]


def _bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 822, 0, 0, 54, 40, width, height, 1, 24, 0, 768, 0, 0, 0, 0)


# --- under a wrong name -------------------------------------------------------------------------------------------


def mislabelled() -> dict[str, Case]:
    cases = {}
    for suffix, kind in (("jpg", "PNG"), ("png", "BMP"), ("bmp", "GIF"), ("gif", "PPM"), ("ppm", "TIFF")):
        expected, image = (RAMP, RAMP) if kind == "GIF" else (COLOURS, COLOURS)
        cases[f"{kind} named .{suffix}"] = read_as(encoded(image, kind), expected, suffix)
    cases["WEBP named .png"] = read_as(encoded(COLOURS, "WEBP", lossless=True), COLOURS)
    cases["JPEG named .tif"] = read_as(encoded(SMOOTH, "JPEG", quality=98), SMOOTH, "tif", tolerance=8)
    others: dict[str, tuple[bytes, str]] = {
        "a page of the web": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "jpg"),
        "a text": (b"this is my cat", "png"),
        "a PDF": (b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer <<>>\n%%EOF", "jpg"),
        "PostScript": (encoded(COLOURS, "EPS"), "png"),
        "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"/>', "png"),
        "an icon": (encoded(COLOURS, "ICO"), "png"),
        "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), "jpg"),
        "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60), "jpg"),
        "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(60), "jpg"),
        "a TGA": (encoded(COLOURS, "TGA"), "bmp"),
        "a PCX": (encoded(COLOURS, "PCX"), "tif"),
        "a film": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(60), "gif"),
        "a pickle": (pickle.dumps({"image": [1, 2, 3]}), "png"),
        "a pointer of Git LFS": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n",
            "png",
        ),
        "a zip": (_zipped(), "png"),
        "an image inside gzip": (zlib.compress(good_png(1)), "png"),
        "a raw array": (RAMP.tobytes(), "png"),
    }
    for name, (content, suffix) in others.items():
        cases[f"{name} named .{suffix}"] = refused(content, suffix, "cannot identify image file")
    return cases


def _zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../x.png", good_png(1))
    return stream.getvalue()


# --- frames, sizes, orientation -----------------------------------------------------------------------------------


def frames() -> dict[str, Case]:
    first, second = Image.fromarray(RAMP), Image.fromarray(255 - RAMP)
    more: dict[str, Any] = {"save_all": True, "append_images": [second]}
    colour = {"save_all": True, "append_images": [Image.fromarray(255 - COLOURS)]}
    return {
        "a moving gif": read_as(encoded(first, "GIF", **more), RAMP, "gif"),
        "a moving png": read_as(encoded(COLOURS, "PNG", **colour), COLOURS),
        "a moving webp": read_as(encoded(COLOURS, "WEBP", lossless=True, **colour), COLOURS, "webp"),
        "a tif of several pages": read_as(encoded(first, "TIFF", **more), RAMP, "tif"),
        "a jpg of several pictures": read_as(
            encoded(SMOOTH, "MPO", quality=98, save_all=True, append_images=[Image.fromarray(255 - SMOOTH)]),
            SMOOTH,
            "jpg",
            tolerance=8,
        ),
        "a moving gif that is cut in its first frame": refused(encoded(first, "GIF", **more)[:900], "gif"),
    }


def sizes() -> dict[str, Case]:
    side = 20_000
    jpeg = encoded(SMOOTH, "JPEG")
    start = jpeg.index(b"\xff\xc0") + 5
    bombs = {
        "png": png(side, side, 8, 2, b""),
        "gif": b"GIF89a"
        + struct.pack("<HH", side, side)
        + b"\0\0\0,"
        + struct.pack("<HHHH", 0, 0, side, side)
        + b"\0\x02\0;",
        "jpg": jpeg[:start] + struct.pack(">HH", side, side) + jpeg[start + 4 :],
        "bmp": _bmp(side, side),
        "ppm": f"P6 {side} {side} 255\n".encode(),
        "tif": _tif_of(side),
        "webp": b"RIFF"
        + struct.pack("<I", 22)
        + b"WEBPVP8X"
        + struct.pack("<I", 10)
        + b"\0\0\0\0"
        + 2 * (16_382).to_bytes(3, "little"),
    }
    cases = {
        f"a {suffix} of 20,000x20,000": Case(among_good(content, suffix), refused=TOO_LARGE.format(suffix))
        for suffix, content in bombs.items()
    }
    one = np.full((1, 1, 3), (200, 100, 50), np.uint8)
    line = np.full((1, 500, 3), (200, 100, 50), np.uint8)
    even = np.full((SIDE, SIDE, 3), (200, 100, 50), np.uint8)
    padded = np.zeros((SIDE, SIDE, 3), np.uint8)
    padded[7] = (200, 100, 50)
    return cases | {
        "1x1 with a size": read_as(encoded(one, "PNG"), even, size=16),
        "1x1 without a size": Case(
            among_good(encoded(one, "PNG")),
            refused="images come in 2 sizes (most often 16x16, 20 of 21); needed: a side",
        ),
        "all 1x1": Case(_all(encoded(one, "PNG")), refused="images are 1x1 pixels; allowed: 16 or more on each side"),
        "all 1x1 with a size": Case(
            _all(encoded(one, "PNG")),
            check=holds(np.full((SIDE, SIDE, 3), (200, 100, 50), np.uint8), count=24),
            settings={"size": 16},
        ),
        "a line, cropped": read_as(encoded(line, "PNG"), even, size=16),
        "a line, padded": read_as(encoded(line, "PNG"), padded, size=16, shape="pad"),
        "a line of 60,000 pixels": read_as(
            encoded(np.full((16, 60_000), 90, np.uint8), "PNG"), np.full((16, 16), 90, np.uint8), size=16
        ),
    }


def _tif_of(side: int) -> bytes:
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, side * side)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def _all(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for number in range(24):
            path = folder / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    return make


def orientation() -> dict[str, Case]:
    stored = np.zeros((SIDE, SIDE, 3), np.uint8)
    stored[:, 8:] = 255  # the right half is white
    turned = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 6: np.rot90(stored, -1), 8: np.rot90(stored)}
    cases = {
        f"jpg of orientation {number}": read_as(
            encoded(stored, "JPEG", quality=98, exif=exif(number)), np.ascontiguousarray(expected), "jpg", tolerance=6
        )
        for number, expected in turned.items()
    }
    for number in (0, 9, 255, 65_535):
        cases[f"jpg of orientation {number}, which does not exist"] = read_as(
            encoded(stored, "JPEG", quality=98, exif=exif(number)), stored, "jpg", tolerance=6
        )
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 1000)
    block = exif(6)[6:]
    return cases | {
        "jpg with an EXIF block of noise": read_as(
            encoded(stored, "JPEG", quality=98, exif=b"Exif\0\0II*\0" + bytes(range(200))), stored, "jpg", tolerance=6
        ),
        "jpg whose EXIF block is cut": read_as(
            encoded(stored, "JPEG", quality=98, exif=exif(6)[:12]), stored, "jpg", tolerance=6
        ),
        "jpg with an orientation in XMP alone": read_as(
            encoded(stored, "JPEG", quality=98, xmp=xmp), np.rot90(stored, -1), "jpg", tolerance=6
        ),
        "png of orientation 6": read_as(encoded(stored, "PNG", exif=exif(6), pnginfo=info), np.rot90(stored, -1)),
        "png whose orientation comes after its pixels": read_as(
            png(16, 16, 8, 2, lines(stored.reshape(16, 48)), late=chunk(b"eXIf", block)), np.rot90(stored, -1)
        ),
        "webp of orientation 6": read_as(
            encoded(stored, "WEBP", lossless=True, exif=exif(6)), np.rot90(stored, -1), "webp"
        ),
        "jpg of several pictures and orientation 6": read_as(
            encoded(stored, "MPO", quality=98, exif=exif(6), save_all=True, append_images=[Image.fromarray(stored)]),
            np.rot90(stored, -1),
            "jpg",
            tolerance=6,
        ),
    }


# --- what only looks like a file ----------------------------------------------------------------------------------


def places() -> dict[str, Case]:
    return {
        "a folder named as an image": Case(
            lambda folder: _then(good_folders(folder), lambda: (folder / "b" / "x.png").mkdir()),
            check=has(20, classes=("a", "b")),
        ),
        "a pipe named as an image": Case(
            among_good(os.mkfifo), refused="b/x.png: is a pipe or a device; allowed: files"
        ),
        "a device named as an image": Case(
            among_good(lambda path: path.symlink_to("/dev/zero")),
            refused="b/x.png: is a pipe or a device; allowed: files",
        ),
        "a pipe beside the images": Case(
            lambda folder: _then(good_folders(folder), lambda: os.mkfifo(folder / "b" / "notes")),
            check=has(20, "1 file that is no image was left out"),
        ),
        "a link to itself": refused(lambda path: path.symlink_to(path), why="Too many levels of symbolic links"),
        "a broken link": Case(
            among_good(lambda path: path.symlink_to("gone.png")),
            refused="b/x.png: is a link to a missing file; allowed: files that exist",
        ),
        "a link to an image elsewhere": Case(
            among_good(lambda path: path.symlink_to(_elsewhere(path))), check=holds(RAMP)
        ),
    }


def _elsewhere(path: Path) -> Path:
    target = path.parents[1] / ".elsewhere" / "ramp"
    target.parent.mkdir()
    target.write_bytes(encoded(RAMP, "PNG"))
    return target


def _then(folder: Path, change: Callable[[], object]) -> Path:
    change()
    return folder


CASES: dict[str, Case] = {
    **broken(),
    **mislabelled(),
    **frames(),
    **sizes(),
    **orientation(),
    **places(),
}
