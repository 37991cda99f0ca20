"""Reads IDX files, gzipped: the format in which MNIST and Fashion-MNIST are published.

Two zero bytes, a byte for the type of the values (8: unsigned bytes), a byte with the number of dimensions, the size of
each as four bytes with the highest first, then the values, of which the last dimension changes fastest.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cgankd.core.errors import UserError

UNSIGNED_BYTES = b"\x00\x00\x08"  # how every file of unsigned bytes begins


def read_gzipped(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of a gzipped IDX file of unsigned bytes with so many dimensions.

    Raises UserError where the file is incomplete or of another form.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: is not a complete .gz file ({error}); delete it and fetch it again") from None
    needed = UNSIGNED_BYTES + bytes([dimensions])
    if content[:4] != needed:
        raise UserError(
            f"{path}: its content begins with the bytes '{content[:4].hex(' ')}'; allowed: '{needed.hex(' ')}', an IDX "
            f"file of unsigned bytes with {dimensions} dimension{'s' * (dimensions > 1)}"
        )
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise UserError(
            f"{path}: its content has {len(content):,} bytes; needed: {start + math.prod(shape):,}, because its first "
            f"bytes announce {'x'.join(map(str, shape))} values"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
