"""Predictions as text."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from PIL import Image

from cgankd.shipping.predict import as_text, readable


def test_a_name_that_is_no_utf8_can_be_written() -> None:
    text = as_text([{"file_name": os.fsdecode(b"\xff.png"), "prediction": 1.5}], "csv", "deg")
    assert text.encode() == text.encode("ascii")
    assert list(csv.DictReader(io.StringIO(text))) == [{"file_name": "\\udcff.png", "prediction, deg": "1.5"}]


def test_images_that_can_not_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("L", (9, 9)).save(good)
    bad.write_bytes(good.read_bytes()[:40])
    assert readable([good]) == ([good], "")
    assert readable([bad, good]) == ([good], f"1 of 2 images can't be read and were left out: {bad}")
