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

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.data.importing import bring, has_alpha, in_parallel
from cgankd.data.listing import Ints, Kind, Plan

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
    """One image per file. Raises UserError naming the first file, in order, that can't be used."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)

    def kinds(self) -> Counter[Kind]:
        def work(places: Sequence[int]) -> list[Kind]:
            return [_kind(self._paths[place]) for place in places]

        kinds = Counter[Kind]()
        with _strict(), in_parallel(work, len(self._paths)) as results:
            for _, found in results:
                kinds.update(found)
        return kinds

    def read(self, rows: Ints, plan: Plan, done: Callable[[int], None]) -> Tensor:
        out = np.empty((len(rows), plan.channels, plan.height, plan.width), np.uint8)

        def work(places: Sequence[int]) -> None:
            for place in places:
                with _opened(self._paths[rows[place]]) as image:
                    turn = _TURNS.get(_orientation(image))
                    image.load()
                    out[place] = bring(image if turn is None else image.transpose(turn), plan)

        with _strict(), in_parallel(work, len(rows)) as results:
            for places, _ in results:
                done(len(places))
        return torch.from_numpy(out)

    def keep(self, rows: Ints) -> FilePictures:
        return FilePictures([self._paths[row] for row in rows])


def _kind(path: Path) -> Kind:
    with _opened(path) as image:
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise UserError(f"{path}: holds 32-bit pixels; allowed: 8 or 16 bits")
        turn = _orientation(image)
        width, height = image.size if turn < 5 else image.size[::-1]
        frames = bool(getattr(image, "is_animated", False))
        return Kind(width, height, image.mode, has_alpha(image), turn in _TURNS, frames)


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
    """The image in ``path``; whatever is wrong with it while it is open becomes a UserError."""
    try:
        with Image.open(path, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"{path}: the image has too many pixels; allowed: at most {MOST_PIXELS:,}") from None
    except Exception as error:  # decoders of broken files raise about anything
        said = " ".join(str(error).split()).replace(f" {str(path)!r}", "")
        raise UserError(f"{path}: not readable as an image ({said}); allowed: whole {', '.join(FORMATS)}") from None


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
