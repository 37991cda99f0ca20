"""The section about students with attention: every share is in the picture, and absent where there is none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cgankd.report.attention import attention
from cgankd.report.blocks import Drawing, Note
from cgankd.report.render import render
from cgankd.report.run import read


def explained(folder: Path, make_results, write_run, write_artifact, bins: int | None = None) -> Path:
    """A run whose row kd has attention; with ``bins``, of so many classes."""
    found = make_results("classification" if bins else "regression", bare=True)
    if bins:
        found["bins"] = found["task_settings"]["class_names"] = [f"class {place}" for place in range(bins)]
    names = found["bins"]
    rng = np.random.default_rng(0)
    mean = rng.dirichlet(np.ones(4), size=(len(names), 2)).astype(np.float32)
    images = np.full(len(names), 3)
    images[1], mean[1] = 0, np.nan
    run = write_run(folder, found, stages=False)
    tensors = {"mean": mean, "images": images, "decided": np.array([0.25, 0.875], dtype=np.float32)}
    path = write_artifact(run, "student-kd-9", {"attention": {"stages": ["layer2", "blocks.3"]}}, attention=tensors)
    found["artifacts"]["students"] = {"kd": [path]}
    write_run(folder, found, stages=False)
    return run


def section(run: Path) -> tuple[str, str]:
    """The picture, and all that is said beside it."""
    found = attention(read(run))
    assert found is not None
    (picture,) = (block for block in found.blocks if isinstance(block, Drawing))
    said = " ".join(block.text for block in found.blocks if isinstance(block, Note))
    return str(picture.drawing), f"{picture.caption} {said}"


def shares(run: Path) -> np.ndarray:
    found = read(run).artifact("students", "kd")
    assert found is not None
    mean = found.tensor("attention.safetensors", "mean")
    assert mean is not None
    return np.delete(mean, 1, axis=0)  # of which there is no image


def test_every_share_stands_in_its_cell(tmp_path: Path, make_results, write_run, write_artifact) -> None:
    run = explained(tmp_path, make_results, write_run, write_artifact)
    drawing, said = section(run)
    texts = [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawing)]
    wanted = [f"{100 * share:.0f}" for share in shares(run).ravel()]
    ticks = ["1", "2", "3", "4"] * 2
    assert sorted(text for text in texts if text.isdigit()) == sorted([*wanted, *ticks])
    assert {"layer2", "blocks.3", "block of filters", "0 to 18"} <= set(texts)
    assert "18 to 36" not in texts  # no image there
    cells = re.findall(r"fill: var\(--blue\); opacity: ([\d.]+)", drawing)
    layer_by_layer = (0.6 * shares(run)).transpose(1, 0, 2)  # as dark as it is large
    assert [float(cell) for cell in cells] == pytest.approx(layer_by_layer.ravel().tolist(), abs=1e-4)
    for words in (
        "by label range, mean over 27 validation images",
        "25 % at layer2, 88 % at blocks.3",
        "or that the prediction would change",
    ):
        assert words in said
    assert 'id="attention"' in render(run).read_text(encoding="utf-8")


def test_of_many_classes_those_furthest_from_the_average(
    tmp_path: Path, make_results, write_run, write_artifact
) -> None:
    run = explained(tmp_path, make_results, write_run, write_artifact, bins=40)
    mean = shares(run)
    far = np.abs(mean - mean.mean(axis=0)).sum(axis=(1, 2))
    names = [f"class {place}" for place in range(40) if place != 1]
    drawing, said = section(run)
    assert set(re.findall(r">\s*(class \d+)\s*<", drawing)) == {names[place] for place in np.argsort(far)[-24:]}
    assert "Of 40, the 24 that differ most from the average are shown" in said


def test_without_attention_there_is_no_section(tmp_path: Path, make_results, write_run, write_artifact) -> None:
    run = explained(tmp_path, make_results, write_run, write_artifact)
    (run / "artifacts/student-kd-9/attention.safetensors").write_bytes(b"cut off")
    assert attention(read(run)) is None
    assert attention(read(write_run(tmp_path / "plain", make_results("regression"), stages=False))) is None


@pytest.mark.parametrize(
    ("ships", "said"), [("last", "first seed: the share"), ("best", "its last weights, which are not")]
)
def test_the_weights_are_named_where_others_ship(
    ships: str, said: str, tmp_path: Path, make_results, write_run, write_artifact
) -> None:
    run = explained(tmp_path, make_results, write_run, write_artifact)
    found = json.loads((run / "results.json").read_text(encoding="utf-8"))
    next(row for row in found["rows"] if row["method"] == "kd")["weights"] = {"ships": ships}
    write_run(tmp_path, found, stages=False)
    assert said in section(run)[1]
