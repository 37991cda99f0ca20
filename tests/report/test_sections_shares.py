"""How many generated images each step left: every share says of which images it is one."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cgankd.report import sections
from cgankd.report.blocks import Grid, Note
from cgankd.report.run import read
from cgankd.shipping.data_card import _counts, _shares
from cgankd.tasks import Classification

Results = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
COUNTS = {"requested": 200, "generated": 1000, "accepted": 400, "kept": 100, "acceptance": 0.4, "filter_quantile": 0.9}


def changed(folder: Path, **values: Any) -> Path:
    """The run's folder with another summary of its generated images."""
    path = folder / "artifacts" / "synthesis-0" / "artifact.json"
    content = json.loads(path.read_text())
    content["summary"] = {**content["summary"], **COUNTS, "subsampling": "maximum", **values}
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {},
            "1,000 images were generated. The density ratio accepted 40 % of them. 100 were kept, after the teacher's "
            "filter: 10 % of those generated. 100 of the requested images are missing.",
        ),
        (
            {"kept": 199},
            "1,000 images were generated. The density ratio accepted 40 % of them. 199 were kept, after the teacher's "
            "filter: 20 % of those generated. 1 of the requested images is missing.",
        ),
        (
            {"subsampling": "none", "acceptance": 1.0, "kept": 6, "requested": 6},
            "1,000 images were generated. 6 were kept, after the teacher's filter: 0.6 % of those generated.",
        ),
        (
            {"filter_quantile": None, "kept": 400, "requested": 400},
            "1,000 images were generated. The density ratio accepted 40 % of them. 400 were kept: 40 % of those "
            "generated.",
        ),
    ],
)
def test_the_page_says_of_which_images_a_share_is_one(
    values: dict[str, Any], sentence: str, tmp_path: Path, make_results: Results, write_run: Write
) -> None:
    run = read(changed(write_run(tmp_path / "run", make_results("classification")), **values))
    assert Note(sentence) in sections.subsampling(run).blocks


def test_a_set_that_was_not_subsampled_has_no_share_of_accepted_images(
    tmp_path: Path, make_results: Results, write_run: Write
) -> None:
    folder = changed(write_run(tmp_path / "run", make_results("classification", ablation=True)))
    path = folder / "artifacts" / "synthesis-1" / "artifact.json"
    content = json.loads(path.read_text())
    content["summary"] |= {"subsampling": "none", "filter_quantile": None}
    path.write_text(json.dumps(content))
    (grid,) = [block for block in sections.subsampling(read(folder)).blocks if isinstance(block, Grid)]
    assert grid.header[3:] == ["kept", "accepted, of those generated", "kept, of those generated"]
    assert sorted(grid.rows) == [
        ["cGAN-KD", "200", "1,000", "100", "40 %", "10 %"],
        ["raw fakes", "50,000", "50,000", "50,000", "–", "100 %"],
    ]


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        (200, ""),
        (199, "1 of 200 requested images is missing, because too few proposals with its label passed."),
        (198, "2 of 200 requested images are missing, because too few proposals with their labels passed."),
    ],
)
def test_the_data_card_says_how_many_images_are_missing(kept: int, sentence: str) -> None:
    labels = torch.zeros(kept, dtype=torch.int64)
    images: Any = types.SimpleNamespace(task=Classification(("a", "b")), images=types.SimpleNamespace(labels=labels))
    assert _counts({"requested": 200, "kept": kept}, images).partition("| b | 0 |")[2].strip() == sentence


def test_the_shares_of_the_data_card() -> None:
    subsampled = {**COUNTS, "subsampling": "maximum"}
    assert _shares(subsampled) == {
        "accepted by the density ratio": "400 of 1,000 generated (40.0%)",
        "kept by the teacher's filter": "100 of 400 accepted (25.0%)",
        "kept in all": "100 of 1,000 generated (10.0%)",
    }
    assert _shares({**subsampled, "subsampling": "none", "accepted": 1000}) == {
        "accepted by the density ratio": "not subsampled",
        "kept by the teacher's filter": "100 of 1,000 generated (10.0%)",
        "kept in all": "100 of 1,000 generated (10.0%)",
    }
    assert _shares({**subsampled, "filter_quantile": None})["kept by the teacher's filter"] == "not filtered"
