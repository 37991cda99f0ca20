"""Whole image files of every mode and depth, which must be read in one way only."""

from __future__ import annotations

import struct

import numpy as np
from bad_images import COLOURS, RAMP, SMOOTH, among_good, chunk, encoded, lines, png, read_as
from bad_inputs import SIDE, Case
from PIL import Image


def modes() -> dict[str, Case]:
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[:8] = 0
    on_black = COLOURS * (alpha[..., None] > 0)
    grey_on_black = RAMP * (alpha > 0)
    deep = RAMP.astype(np.uint16) * 257
    bits = (RAMP > 127).astype(np.uint8) * 255
    palette = Image.fromarray(RAMP, "P")
    palette.putpalette([value for n in range(256) for value in (n, 255 - n, n // 2)])
    painted = np.dstack([RAMP, 255 - RAMP, RAMP // 2])
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 255
    cmyk = Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0))
    return {
        "grey": read_as(encoded(RAMP, "PNG"), RAMP),
        "grey with opacity": read_as(encoded(np.dstack([RAMP, alpha]), "PNG"), grey_on_black),
        "colour with opacity": read_as(encoded(np.dstack([COLOURS, alpha]), "PNG"), on_black),
        "colour with opacity as webp": read_as(
            encoded(np.dstack([COLOURS, alpha]), "WEBP", lossless=True), on_black, "webp"
        ),
        "colour with opacity as tif": read_as(encoded(np.dstack([COLOURS, alpha]), "TIFF"), on_black, "tif"),
        "grey with one transparent value": read_as(
            png(16, 16, 8, 0, lines(RAMP), chunk(b"tRNS", b"\0\x05")), np.where(RAMP == 5, 0, RAMP)
        ),
        "colour with one transparent colour": read_as(
            png(16, 16, 8, 2, lines(COLOURS.reshape(16, 48)), chunk(b"tRNS", _pair(COLOURS[3, 3]))),
            np.where((COLOURS[3, 3] == COLOURS).all(axis=2, keepdims=True), 0, COLOURS),
        ),
        "palette": read_as(encoded(palette, "PNG"), painted),
        "palette as gif": read_as(encoded(palette, "GIF"), painted, "gif"),
        "palette as bmp": read_as(encoded(palette, "BMP"), painted, "bmp"),
        "palette as tif": read_as(encoded(palette, "TIFF"), painted, "tif"),
        "palette with a transparent entry": read_as(
            encoded(palette, "PNG", transparency=9), np.where(RAMP[..., None] == 9, 0, painted)
        ),
        "palette with an opacity for each entry": read_as(
            encoded(palette, "PNG", transparency=bytes([255] * 128 + [0] * 128)),
            np.where(RAMP[..., None] >= 128, 0, painted),
        ),
        "palette of two bits": read_as(
            png(16, 16, 2, 3, lines(np.full((16, 4), 0b00011011, np.uint8)), chunk(b"PLTE", bytes(range(0, 240, 20)))),
            np.tile(np.arange(0, 240, 20, dtype=np.uint8).reshape(1, 4, 3), (16, 4, 1)),
        ),
        "palette as gif with a transparent entry": read_as(
            encoded(palette, "GIF", transparency=9), np.where(RAMP[..., None] == 9, 0, painted), "gif"
        ),
        "one bit": read_as(encoded(Image.fromarray(bits).convert("1"), "PNG"), bits),
        "one bit as tif": read_as(encoded(Image.fromarray(bits).convert("1"), "TIFF"), bits, "tif"),
        "one bit as pbm": read_as(encoded(Image.fromarray(bits).convert("1"), "PPM"), bits, "pgm"),
        "grey of two bits": read_as(
            png(16, 16, 2, 0, lines(np.full((16, 4), 0b00011011, np.uint8))),
            np.tile(np.array([0, 85, 170, 255], np.uint8), (16, 4)),
        ),
        "grey of four bits": read_as(
            png(16, 16, 4, 0, lines(np.tile(np.arange(0, 256, 32, dtype=np.uint8) + 1, (16, 1)))),
            np.tile(np.array([17 * n for pair in range(8) for n in (2 * pair, 1)], np.uint8), (16, 1)),
        ),
        "CMYK as jpg": read_as(encoded(cmyk, "JPEG", quality=98), red, "jpg", tolerance=6),
        "CMYK as tif": read_as(encoded(cmyk, "TIFF"), red, "tif"),
        "YCbCr as tif": read_as(encoded(Image.fromarray(SMOOTH).convert("YCbCr"), "TIFF"), SMOOTH, "tif", tolerance=4),
        "LAB as tif": read_as(
            encoded(Image.frombytes("LAB", (16, 16), b"\xff\0\0" * 256), "TIFF"),
            np.full((16, 16), 255, np.uint8),
            "tif",
            tolerance=2,
        ),
        "16 bits": read_as(encoded(deep, "PNG"), RAMP),
        "16 bits as tif": read_as(encoded(deep, "TIFF"), RAMP, "tif"),
        "16 bits as tif with the high byte first": read_as(_big_endian_tif(deep), RAMP, "tif"),
        "16 bits of colour": read_as(
            png(16, 16, 16, 2, lines((COLOURS.astype(">u2") * 257).astype(">u2").view(np.uint8).reshape(16, 96))),
            COLOURS,
        ),
        "16 bits of colour with opacity": read_as(
            png(16, 16, 16, 6, lines(_deep_with_alpha(COLOURS, alpha).reshape(16, 128))), on_black
        ),
        "16 bits of grey with opacity": read_as(
            png(16, 16, 16, 4, lines(_deep_with_alpha(RAMP[..., None], alpha).reshape(16, 64))), grey_on_black
        ),
        "pgm of 10 bits": read_as(
            b"P5 16 16 1023\n" + (RAMP.astype(np.uint32) * 1023 // 255).astype(">u2").tobytes(), RAMP, "pgm", 1
        ),
        "pgm of 12 bits": read_as(
            b"P5 16 16 4095\n" + (RAMP.astype(np.uint32) * 4095 // 255).astype(">u2").tobytes(), RAMP, "pgm", 1
        ),
        "pgm with a maximum of 100": read_as(
            b"P5 16 16 100\n" + (RAMP.astype(int) * 100 // 255).astype(np.uint8).tobytes(), RAMP, "pgm", 3
        ),
        "ppm of 16 bits": read_as(
            b"P6 16 16 65535\n" + (COLOURS.astype(np.uint32) * 257).astype(">u2").tobytes(), COLOURS, "ppm"
        ),
        "ppm of letters with a comment": read_as(
            b"P3\n# a comment\n16 16\n255\n" + " ".join(map(str, COLOURS.ravel())).encode(), COLOURS, "ppm"
        ),
        "decimals as tif": Case(
            among_good(encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "tif"),
            refused="b/x.tif: has 32-bit pixels; allowed: 8 or 16 bits",
        ),
        "32 bits as tif": Case(
            among_good(encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "tif"),
            refused="b/x.tif: has 32-bit pixels; allowed: 8 or 16 bits",
        ),
        "decimals as pfm": Case(
            among_good(b"Pf 16 16 -1.0\n" + RAMP.astype("<f4").tobytes(), "pgm"),
            refused="b/x.pgm: has 32-bit pixels; allowed: 8 or 16 bits",
        ),
        "progressive jpg": read_as(encoded(SMOOTH, "JPEG", quality=98, progressive=True), SMOOTH, "jpg", tolerance=8),
        "grey jpg": read_as(encoded(SMOOTH[..., 0], "JPEG", quality=98), SMOOTH[..., 0], "jpg", tolerance=8),
        "compressed tif": read_as(encoded(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS, "tif"),
        "bmp with opacity": read_as(encoded(np.dstack([COLOURS, np.full_like(RAMP, 255)]), "BMP"), COLOURS, "bmp"),
    }


def _pair(colour: np.ndarray) -> bytes:
    return b"".join(bytes([0, value]) for value in colour.tolist())


def _deep_with_alpha(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return (np.dstack([colours, alpha]).astype(np.uint32) * 257).astype(">u2").view(np.uint8)


def _big_endian_tif(deep: np.ndarray) -> bytes:
    tags = [
        (256, 3, 16),
        (257, 3, 16),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 134),
        (277, 3, 1),
        (278, 3, 16),
        (279, 4, 512),
    ]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    head = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", len(tags)) + entries + bytes(4)
    return head + bytes(134 - len(head)) + deep.astype(">u2").tobytes()


CASES: dict[str, Case] = modes()
