"""Read image files, also those inside another file: first all headers, so that errors appear at once, then all images.

Only complete images are accepted: a truncated file is an error, never a half-grey image.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile
from torch import Tensor

from cgankd.core.errors import UserError, first_of
from cgankd.data.depth import largest
from cgankd.data.importing import DEEP_MODES, Pixels, convert_image, has_alpha, in_parallel
from cgankd.data.listing import Ints, Kind, Peak, Plan

T = TypeVar("T")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no others: to read EPS, Pillow starts a program
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


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The bytes of an image file inside another file. place: where it is, for messages."""

    data: bytes
    place: str

    def __str__(self) -> str:
        return self.place


File = Path | Encoded


class FilePictures:
    """One image per file. Raises UserError that names the files that can't be used (at most twenty)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def kinds(self) -> Counter[Kind]:
        kinds = Counter[Kind]()
        for kind in self._each(_kind):
            kinds[kind] += 1
        return kinds

    def peak(self) -> Peak:
        return largest([peak for peak in self._each(_peak) if peak is not None])

    def read(self, rows: Ints, plan: Plan, done: Callable[[int], None]) -> Tensor:
        out = np.empty((len(rows), plan.channels, plan.height, plan.width), np.uint8)

        def work(places: Sequence[int]) -> None:
            for place in places:
                out[place] = _decoded(self.paths[rows[place]], plan)

        try:
            with _strict(), in_parallel(work, len(rows)) as results:
                for places, _ in results:
                    done(len(places))
        except Unusable as error:
            raise self._all_unusable(error) from None
        return torch.from_numpy(out)

    def keep(self, rows: Ints) -> FilePictures:
        return FilePictures([self.paths[row] for row in rows])

    def _each(self, look: Callable[[Path], T]) -> list[T]:
        """``look`` of each file, in order."""

        def work(places: Sequence[int]) -> list[T]:
            return [look(self.paths[place]) for place in places]

        try:
            with _strict(), in_parallel(work, len(self.paths)) as results:
                return [result for _, part in results for result in part]
        except Unusable as error:
            raise self._all_unusable(error) from None

    def _all_unusable(self, first: Unusable) -> UserError:
        """The error for all files that can't be used; all are decoded, so that it names more than the first."""

        def work(places: Sequence[int]) -> list[Unusable]:
            errors = []
            for place in places:
                try:
                    _kind(self.paths[place])
                    with _opened(self.paths[place]) as image:
                        image.load()
                except Unusable as error:
                    errors.append(error)
            return errors

        with _strict(), in_parallel(work, len(self.paths)) as results:
            errors = [error for _, part in results for error in part] or [first]
        if len(errors) == 1:
            return UserError(f"{errors[0].path}: {errors[0].reason}; {errors[0].allowed}")
        listed = first_of([f"{error.path} ({error.reason})" for error in errors])
        allowed = "; ".join(dict.fromkeys(error.allowed for error in errors))
        return UserError(f"{len(errors):,} of {len(self.paths):,} image files can't be used: {listed}; {allowed}")


class EncodedPictures:
    """Images that lie encoded in other files. Raises UserError that names the first that can't be used.

    blocks: all of them, in order, a few at a time; called for each pass. count: their number. kept: rows; None: all.
    """

    def __init__(self, blocks: Callable[[], Iterator[list[Encoded]]], count: int, kept: Ints | None = None) -> None:
        self._blocks, self._count = blocks, count
        self._kept = np.arange(count) if kept is None else kept

    def keep(self, rows: Ints) -> EncodedPictures:
        return EncodedPictures(self._blocks, self._count, self._kept[rows])

    def kinds(self) -> Counter[Kind]:
        return Counter(kind for _, kind in self._each(self._kept, _kind))

    def peak(self) -> Peak:
        return largest([peak for _, peak in self._each(self._kept, _peak) if peak is not None])

    def read(self, rows: Ints, plan: Plan, done: Callable[[int], None]) -> Tensor:
        out = np.empty((len(rows), plan.channels, plan.height, plan.width), np.uint8)
        places: dict[int, list[int]] = {}  # row in the files -> places in ``out``
        for place, row in enumerate(self._kept[rows].tolist()):
            places.setdefault(row, []).append(place)
        for row, pixels in self._each(np.asarray(list(places), np.int64), lambda file: _decoded(file, plan)):
            out[places[row]] = pixels
            done(len(places[row]))
        return torch.from_numpy(out)

    def _each(self, rows: Ints, look: Callable[[File], T]) -> Iterator[tuple[int, T]]:
        """(row, ``look`` of its image) for the images at ``rows``, in the order of the files."""
        wanted = np.zeros(self._count, bool)
        wanted[rows] = True
        start = 0
        try:
            with _strict():
                for block in self._blocks():
                    for row, file in enumerate(block, start):
                        if wanted[row]:
                            yield row, look(file)
                    start += len(block)
        except Unusable as error:
            raise UserError(f"{error.path}: {error.reason}; {error.allowed}") from None


class Unusable(Exception):
    """A file that holds no image of an allowed kind."""

    def __init__(self, path: File, reason: str, allowed: str) -> None:
        super().__init__(path, reason, allowed)
        self.path, self.reason, self.allowed = path, reason, allowed


def _decoded(path: File, plan: Plan) -> Pixels:
    with _opened(path) as image:
        turn = _TURNS.get(_orientation(image))
        image.load()
        return convert_image(image if turn is None else image.transpose(turn), plan)


def _kind(path: File) -> Kind:
    with _opened(path) as image:
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise Unusable(path, "has 32-bit pixels", "allowed: 8 or 16 bits")
        bits = _bits(image)
        turn = _orientation(image)
        width, height = image.size if turn < 5 else image.size[::-1]
        frames = bool(getattr(image, "is_animated", False))
        return Kind(width, height, image.mode, has_alpha(image), turn in _TURNS, frames, bits)


def _peak(path: File) -> Peak | None:
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
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # getexif() would decode the whole image
    if image.format == "TIFF":
        image.load()  # newer versions of Pillow apply a TIFF's orientation on loading, and then report 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an image with a broken EXIF block can still be used
        return 1


@contextmanager
def _opened(path: File) -> Iterator[ImageFile.ImageFile]:
    """The image in ``path``; an error while it is open becomes :class:`Unusable`."""
    try:
        with Image.open(io.BytesIO(path.data) if isinstance(path, Encoded) else path, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except (UserError, Unusable):
        raise
    except Image.DecompressionBombError:
        raise Unusable(path, "the image has too many pixels", f"allowed: at most {MOST_PIXELS:,}") from None
    except Exception as error:  # decoders raise many kinds of errors for broken files
        system = error.strerror if isinstance(error, OSError) else None
        reason = " ".join(str(system or error).split()).replace(f" {str(path)!r}", "")
        allowed = f"allowed: complete {', '.join(FORMATS)}"
        raise Unusable(path, f"not readable as an image ({reason})", allowed) from None


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
