"""Generated images of one label as files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from cgankd.core.errors import UserError
from cgankd.shipping.generate import write_files
from cgankd.tasks import Classification


def test_a_folder_says_any_class_name_and_belongs_to_one_label(tmp_path: Path) -> None:
    images, task, folder = torch.zeros(3, 1, 16, 16, dtype=torch.uint8), Classification(('a, "b"', "c")), tmp_path / "x"
    write_files(images, task, 'a, "b"', folder)
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert lines == [{"file_name": f"0000{number}.png", "label": 'a, "b"'} for number in range(3)]
    with pytest.raises(UserError, match="is there already; a new or empty folder is needed"):
        write_files(images[:2], task, "c", folder)
