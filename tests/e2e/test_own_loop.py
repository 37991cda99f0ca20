"""The code of docs/your-own.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import code

import cgankd


def test_the_estimator_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = code("your-own.md", "How do I use it from scikit-learn?")
    small = re.sub(r"steps=300, generator_steps=300, n_generated=1000", "steps=2, generated=False", block)
    assert small != block
    X = np.random.default_rng(0).integers(0, 255, (30, 16, 16), np.uint8)
    y = np.arange(30) % 3
    exec(small, {"X": X, "y": y, "X_test": X, "y_test": y})
    assert (tmp_path / "model.safetensors").is_file()
    assert (tmp_path / "model.onnx").is_file()


def test_a_transform_and_soft_labels_reach_the_loop() -> None:
    images = torch.full((4, 1, 16, 16), 51, dtype=torch.uint8)
    soft = torch.tensor([[0.25, 0.75]] * 4)
    data = cgankd.ImageSet(images, torch.zeros(4, dtype=torch.int64), {"target": soft}).dataset(lambda x: x * 2)
    image, label = data[1]
    assert float(image[0, 0, 0]) == pytest.approx(0.4)
    assert label.tolist() == [0.25, 0.75]
