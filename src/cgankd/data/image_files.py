"""Read encoded images: first all headers, so that errors appear at once, then all images in parallel.

Only complete images are accepted: a truncated file is an error, never a half-grey image.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile
from torch import Tensor

from cgankd.core.errors import UserError, first_of
from cgankd.core.files import endless
from cgankd.data.depth import largest
from cgankd.data.importing import DEEP_MODES, Pixels, convert_image, has_alpha, in_parallel
from cgankd.data.listing import Ints, Kind, Peak, Plan

T = TypeVar("T")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no others: to read EPS, Pillow starts a program
COMPLETE = f"allowed: complete {', '.join(FORMATS)}"
MISSING = "the file is missing"
MOST_PIXELS = 89_478_485  # above this Pillow warns of decompression bombs
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> the operation that makes the image upright


class Encoded(Protocol):
    """An encoded image that is not a file of its own; ``str`` names its place for messages. file: that it is read
    from; None where there is none. name: its place, with its own name where it has one."""

    @property
    def file(self) -> Path | None: ...

    @property
    def name(self) -> str: ...

    def open(self) -> Path | io.BytesIO: ...


class EncodedPictures:
    """Encoded images: files, or cells of tables. Raises UserError that names those that can't be used (at most
    twenty)."""

    def __init__(self, items: Sequence[Path | Encoded]) -> None:
        self.items = list(items)

    def kinds(self) -> Counter[Kind]:
        kinds = Counter[Kind]()
        for kind in self._each(_kind):
            kinds[kind] += 1
        return kinds

    def peak(self) -> Peak:
        return largest([peak for peak in self._each(_peak) if peak is not None])

    def read(self, rows: Ints, plan: Plan, done: Callable[[int], None], out: Pixels | None = None) -> Tensor:
        out = np.empty((len(rows), plan.channels, plan.height, plan.width), np.uint8) if out is None else out

        def work(places: Sequence[int]) -> None:
            for place in places:
                out[place] = _decoded(self.items[rows[place]], plan)

        try:
            with _strict(), in_parallel(work, len(rows)) as results:
                for places, _ in results:
                    done(len(places))
        except Unusable as error:
            raise self.refusal([*self.unusable().values()] or [error]) from None
        return torch.from_numpy(out)

    def keep(self, rows: Ints) -> EncodedPictures:
        return type(self)([self.items[row] for row in rows])

    def origins(self) -> Iterator[tuple[Path | None, str]]:
        for item in self.items:
            yield (item, "") if isinstance(item, Path) else (item.file, str(item))

    def _each(self, look: Callable[[Path | Encoded], T]) -> list[T]:
        """``look`` of each file, in order."""

        def work(places: Sequence[int]) -> list[T]:
            return [look(self.items[place]) for place in places]

        try:
            with _strict(), in_parallel(work, len(self.items)) as results:
                return [result for _, part in results for result in part]
        except Unusable as error:
            raise self.refusal([*self.unusable().values()] or [error]) from None

    def unusable(self) -> dict[int, Unusable]:
        """Row -> why its image can't be used. All images are decoded."""

        def work(places: Sequence[int]) -> list[tuple[int, Unusable]]:
            errors = []
            for place in places:
                try:
                    _kind(self.items[place])
                    with _opened(self.items[place]) as image:
                        image.load()
                except Unusable as error:
                    errors.append((place, error))
            return errors

        with _strict(), in_parallel(work, len(self.items)) as results:
            return dict(error for _, part in results for error in part)

    def refusal(self, errors: Sequence[Unusable]) -> UnusableImages:
        """The error that names the images that can't be used."""
        if len(errors) == 1:
            return UnusableImages(f"{errors[0].path}: {errors[0].reason}; {errors[0].allowed}")
        listed = first_of([f"{error.path} ({error.reason})" for error in errors])
        allowed = "; ".join(dict.fromkeys(error.allowed for error in errors))
        return UnusableImages(f"{len(errors):,} of {len(self.items):,} images can't be used: {listed}; {allowed}")


class FilePictures(EncodedPictures):
    """One image per file."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self.paths = list(paths)


class UnusableImages(UserError):
    """Images that can't be read or decoded; a caller that can go on without them says how."""


class Unusable(Exception):
    """A file that holds no image of an allowed kind."""

    def __init__(self, path: Path | Encoded, reason: str, allowed: str) -> None:
        super().__init__(path, reason, allowed)
        self.path, self.reason, self.allowed = path, reason, allowed


def _decoded(path: Path | Encoded, plan: Plan) -> Pixels:
    with _opened(path) as image:
        turn = _TURNS.get(_orientation(image))
        image.load()
        return convert_image(image if turn is None else image.transpose(turn), plan)


def _kind(path: Path | Encoded) -> Kind:
    with _opened(path) as image:
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise Unusable(path, "has 32-bit pixels", "allowed: 8 or 16 bits")
        if image.mode == "P" and image.palette is None:
            raise Unusable(path, "has no palette, which its pixels need", COMPLETE)
        bits = _bits(image)
        turn = _orientation(image)
        width, height = image.size[::-1] if turn in (5, 6, 7, 8) else image.size
        frames = bool(getattr(image, "is_animated", False))
        return Kind(width, height, image.mode, has_alpha(image), turn in _TURNS, frames, bits)


def _peak(path: Path | Encoded) -> Peak | None:
    """The largest value of a 16-bit image; None for an 8-bit image."""
    with _opened(path) as image:
        if _bits(image) == 8:
            return None
        if image.mode in DEEP_MODES:
            return Peak(int(np.asarray(image).max()), str(path))
        return Peak(256 * int(np.asarray(image.convert("RGB")).max()) + 255, str(path), coarse=True)


def _bits(image: ImageFile.ImageFile) -> int:
    """Bits per value in the file, 16 or 8; must be called before the image is decoded."""
    if image.mode in DEEP_MODES:
        return 16
    if not image.tile:
        return 8
    codec, *_, how = image.tile[0]
    raw = how if isinstance(how, tuple) else (how,)  # Pillow's name for the layout in the file: RGB;16B
    deepest = codec == "ppm" and raw[-1] == 65_535
    return 16 if deepest or ";16" in str(raw[0]) else 8


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none."""
    if image.format == "PNG" and "exif" not in image.info:  # getexif() would decode the whole image
        block = _late_exif(image.fp)
        if not block:
            return 1
        image.info["exif"] = b"Exif\0\0" + block
    if image.format == "TIFF":
        image.load()  # newer versions of Pillow apply a TIFF's orientation on loading, and then report 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an image with a broken EXIF block can still be used
        return 1


def _late_exif(stream: IO[bytes] | None) -> bytes:
    """The EXIF block that a PNG holds behind its pixels, where Pillow finds it too late; empty: there is none."""
    assert stream is not None  # an image that was not decoded yet
    here, start = stream.tell(), 8  # the first chunk begins behind the signature of eight bytes
    try:
        while True:
            stream.seek(start)
            head = stream.read(8)  # of each chunk: the number of bytes of its content, and its kind
            size = int.from_bytes(head[:4], "big")
            if len(head) < 8 or head[4:] == b"eXIf":
                return stream.read(size)
            start += size + 12
    finally:
        stream.seek(here)


@contextmanager
def _opened(path: Path | Encoded) -> Iterator[ImageFile.ImageFile]:
    """The image in ``path``; an error while it is open becomes :class:`Unusable`."""
    try:
        content = path if isinstance(path, Path) else path.open()
        if isinstance(content, Path) and endless(content):
            raise Unusable(path, "is a pipe or a device", "allowed: files")
        with Image.open(content, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except (UserError, Unusable):
        raise
    except Image.DecompressionBombError:
        raise Unusable(path, "the image has too many pixels", f"allowed: at most {MOST_PIXELS:,}") from None
    except FileNotFoundError:
        linked = isinstance(path, Path) and path.is_symlink()
        reason = "is a link to a missing file" if linked else MISSING
        raise Unusable(path, reason, "allowed: files that exist") from None
    except Exception as error:  # decoders raise many kinds of errors for broken files
        system = error.strerror if isinstance(error, OSError) else None
        reason = re.sub(r" <_io\.BytesIO [^>]*>", "", " ".join(str(system or error).split())).replace(
            f" {str(path)!r}", ""
        )
        raise Unusable(path, f"not readable as an image ({reason})", COMPLETE) from None


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _strict() -> Iterator[None]:
    """A block where truncated files are errors, whatever another library has set, without Pillow's warnings."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
