"""Image files to pictures: every header first, so that what is wrong shows at once, then all of them in parallel.

Only whole images are accepted: a file that ends too early is an error, never a half-grey image.
"""

from __future__ import annotations

import functools
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
from cgankd.data.importing import DEEP_MODES, Pixels, bring, has_alpha, in_parallel
from cgankd.data.listing import Ints, Kind, Peak, Plan

T = TypeVar("T")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # and no other: EPS, say, would start a program
MOST_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what undoes it


class FilePictures:
    """One image per file. Raises UserError naming the files that can't be used: all of them, or the first twenty."""

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
        """What ``look`` says of each file, in order."""

        def work(places: Sequence[int]) -> list[T]:
            return [look(self.paths[place]) for place in places]

        try:
            with _strict(), in_parallel(work, len(self.paths)) as results:
                return [seen for _, part in results for seen in part]
        except Unusable as error:
            raise self._all_unusable(error) from None

    def _all_unusable(self, first: Unusable) -> UserError:
        """All files are decoded to name every one that can't be used, not the first alone."""

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


class Unusable(Exception):
    """A file that holds no image of an allowed kind."""

    def __init__(self, path: Path, reason: str, allowed: str) -> None:
        super().__init__(path, reason, allowed)
        self.path, self.reason, self.allowed = path, reason, allowed


def _decoded(path: Path, plan: Plan) -> Pixels:
    with _opened(path) as image:
        turn = _TURNS.get(_orientation(image))
        image.load()
        return bring(image if turn is None else image.transpose(turn), plan)


def _kind(path: Path) -> Kind:
    with _opened(path) as image:
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise Unusable(path, "holds 32-bit pixels", "allowed: 8 or 16 bits")
        bits = _bits(image)
        turn = _orientation(image)
        width, height = image.size if turn < 5 else image.size[::-1]
        frames = bool(getattr(image, "is_animated", False))
        return Kind(width, height, image.mode, has_alpha(image), turn in _TURNS, frames, bits)


def _peak(path: Path) -> Peak | None:
    """The largest value of an image of 16 bits; None for another."""
    with _opened(path) as image:
        if _bits(image) == 8:
            return None
        if image.mode in DEEP_MODES:
            return Peak(int(np.asarray(image).max()), str(path))
        return Peak(256 * int(np.asarray(image.convert("RGB")).max()) + 255, str(path), coarse=True)


def _bits(image: ImageFile.ImageFile) -> int:
    """16 or 8, of one value in the file; asked before the image is decoded."""
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
        return 1  # asking further would decode the whole image
    if image.format == "TIFF":
        image.load()  # newer versions of Pillow turn a TIFF as they load it, and then say 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The image in ``path``; whatever is wrong with it while it is open becomes :class:`Unusable`."""
    try:
        with Image.open(path, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except (UserError, Unusable):
        raise
    except Image.DecompressionBombError:
        raise Unusable(path, "the image has too many pixels", f"allowed: at most {MOST_PIXELS:,}") from None
    except Exception as error:  # decoders of broken files raise about anything
        system = error.strerror if isinstance(error, OSError) else None
        reason = " ".join(str(system or error).split()).replace(f" {str(path)!r}", "")
        raise Unusable(path, f"not readable as an image ({reason})", f"allowed: whole {', '.join(FORMATS)}") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _strict() -> Iterator[None]:
    """Truncated files are errors, whatever another library has set; what is raised is not warned of as well."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
