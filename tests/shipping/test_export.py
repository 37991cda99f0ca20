"""An exported file is compared with its student, on the scale of the task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cgankd.core.errors import TrainingError
from cgankd.data.listing import Plan
from cgankd.shipping.export import _difference
from cgankd.shipping.finished import Student
from cgankd.tasks import CircularRegression, Regression


@pytest.mark.parametrize("task", [Regression(0.0, 1e-9), Regression(0.0, 1e9), CircularRegression(high=1e-3)])
def test_a_file_that_misses_the_student_by_a_hundredth_of_the_label_range_is_removed(
    tmp_path: Path, task: Regression | CircularRegression
) -> None:
    student = Student(nn.Sequential(nn.Flatten(), nn.Linear(256, task.num_outputs)), task, Plan(16, 16, 1, "crop"), {})
    images = torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = task.deployed(student.network(images / 255.0)).double()
    path = tmp_path / "student.onnx"
    path.write_bytes(b"")
    assert _difference(path, student, images, answers + 1e-5 * task.error_scale) < 1e-4 * task.error_scale
    with pytest.raises(TrainingError, match="was removed: what it gives for 8 images differs"):
        _difference(path, student, images, answers + 0.01 * task.error_scale)
    assert not path.exists()
