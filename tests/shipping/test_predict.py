"""Predictions as text."""

from __future__ import annotations

import csv
import io
import os

from cgankd.shipping.predict import as_text


def test_a_name_that_is_no_utf8_can_be_written() -> None:
    text = as_text([{"file_name": os.fsdecode(b"\xff.png"), "prediction": 1.5}], "csv", "deg")
    assert text.encode() == text.encode("ascii")
    assert list(csv.DictReader(io.StringIO(text))) == [{"file_name": "\\udcff.png", "prediction, deg": "1.5"}]
