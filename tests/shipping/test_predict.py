"""Predictions as text."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from cgankd.data.listing import Plan
from cgankd.shipping.predict import as_text, predict, readable
from cgankd.tasks import Classification


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


@pytest.mark.parametrize("most", [None, 1])
def test_probabilities_are_sorted_and_as_many_as_are_asked_for(tmp_path: Path, most: int | None) -> None:
    # A table of 20,000 images shows one of 1,000 probabilities each; all of them would take a GB.
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 3.0]])

    def ask(images: Tensor) -> Tensor:
        return logits[: len(images)]

    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        Image.new("L", (9, 9)).save(file)
    records = predict((Classification(("x", "y", "z")), Plan(9, 9, 1, "crop"), ask), files, most)
    shares = torch.softmax(logits.double(), dim=1)
    expected = [
        ("y", {"y": shares[0, 1], "z": shares[0, 2], "x": shares[0, 0]}),
        ("x", {"x": shares[1, 0], "z": shares[1, 2], "y": shares[1, 1]}),
    ]  # of equal ones the first class
    for record, file, (name, of) in zip(records, files, expected, strict=True):
        assert (record["file_name"], record["prediction"]) == (str(file), name)
        assert list(record["probabilities"]) == list(of)[:most]
        for other, share in record["probabilities"].items():
            assert share == pytest.approx(float(of[other]), abs=2e-6)
