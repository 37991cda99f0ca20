"""Data sets and runs from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgankd import UserError, load_data, run_recipe, show_progress


def test_progress_is_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    progress = show_progress(seconds=0.0)
    with progress.bar("generator", 4) as bar:
        for step in range(1, 5):
            bar.to(step)
    said = capsys.readouterr().out
    assert "generator 2/4 steps" in said
    assert "\x1b" not in said


def test_an_override_is_text() -> None:
    with pytest.raises(UserError, match=r"an override is \['seeds=\[0\]'\]; needed: text"):
        run_recipe("digits", ["seeds=[0]"])


def test_a_source_may_be_a_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.source '.*nowhere' does not exist"):
        load_data(tmp_path / "nowhere")
