"""Predictions as text."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from cgankd.cli.screen import console
from cgankd.cli.ship import _print_predictions
from cgankd.cli.watch import one_loop
from cgankd.core.progress import Bar, Progress
from cgankd.data.listing import Plan
from cgankd.shipping.predict import as_text, predict, readable
from cgankd.tasks import Classification, Regression


def test_a_name_that_is_no_utf8_can_be_written() -> None:
    text = as_text([{"file_name": os.fsdecode(b"\xff.png"), "prediction": 1.5}], "csv", "deg")
    assert text.encode() == text.encode("ascii")
    assert list(csv.DictReader(io.StringIO(text))) == [{"file_name": "\\udcff.png", "prediction, deg": "1.5"}]


def test_images_that_can_not_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("L", (9, 9)).save(good)
    bad.write_bytes(good.read_bytes()[:40])
    assert readable([good]) == ([good], "")
    assert readable([bad, good]) == ([good], f"1 of 2 images can't be read and was left out: {bad}")


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


def test_predictions_of_many_images_are_counted_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    files, done = [tmp_path / "a.png"] * 5, []

    class Counted(Progress):
        @contextmanager
        def bar(self, title: str, total: float) -> Iterator[Bar]:
            class Noting(Bar):
                def to(self, now: float, note: str = "") -> None:
                    done.append((now, total))

            yield Noting()

    monkeypatch.setattr("cgankd.shipping.predict.MOST", 2)
    asked = Classification(("x", "y")), Plan(9, 9, 1, "crop"), lambda images: torch.eye(2)[: len(images)]
    records = predict(asked, files, progress=Counted())
    assert [record["prediction"] for record in records] == ["x", "y", "x", "y", "x"]
    assert done == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("quiet", [False, True])
def test_the_progress_of_predictions_is_not_in_the_result(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with one_loop(quiet, at_stderr=True) as progress:
        progress.say("half way")
    console.print("the result")
    written = capsys.readouterr()
    assert (written.out, written.err) == ("the result\n", "" if quiet else "half way\n")


@pytest.mark.parametrize(
    ("ends", "predictions", "shown"),
    [
        ((0.0, 90.0), [45.2345, 0.5], ["45.23", "0.5"]),
        ((2459000.0, 2459001.0), [2459000.25, 2459000.375], ["2459000.25", "2459000.375"]),
        ((-1e-9, 1e-9), [2.5e-10], ["2.5e-10"]),
    ],
)
def test_printed_predictions_differ_where_the_range_is_narrow(
    ends: tuple[float, float], predictions: list[float], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _print_predictions(
        [{"file_name": "a.png", "prediction": value} for value in predictions], Regression(*ends).deployed_facts
    )
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == shown
