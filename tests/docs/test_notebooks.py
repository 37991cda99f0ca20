"""The notebooks of docs/notebooks run to their end, with a hundredth of their steps, and show what they promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = ["classification", "regression"]


def outputs(notebook: Any) -> list[dict[str, Any]]:
    """What each code cell shows last, by kind."""
    shown = [
        [output.data for output in cell.outputs if "data" in output] for cell in notebook.cells if "outputs" in cell
    ]
    return [parts[-1] for parts in shown if parts]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_and_shows_images_a_figure_and_tables(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ipykernel")  # of cgankd[notebooks], which make test-long installs
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("CGANKD_NOTEBOOK_SHARE", "0.01")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = outputs(notebook)
    assert "<figcaption" in shown[0]["text/html"]
    assert any(part["text/plain"] == "<figure: losses of the GAN>" and "image/png" in part for part in shown)
    assert "cGAN-KD + KD" in shown[-1]["text/plain"]
    assert "<td>labels alone</td>" in shown[-1]["text/html"]


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_outputs_are_of_these_cells_and_small(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))  # run once, in order
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] in ("error", "stream")]
    assert path.stat().st_size < 400_000
