"""Several processes read images for the density ratio: its weights, checks and checkpoints are those of one."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import shared_ratio
import torch
from lightning_fabric import Fabric

from cgankd.core.files import load_tensors
from cgankd.nets.build import WEIGHTS
from ends import main, one_and_two_go_on, open_store
from works import in_processes

RUN = functools.partial(main, shared_ratio.trained)


def check_equal(cases: list[str], one: Path, several: Path, fabric: Fabric) -> None:
    """Both folders hold the same ratios; where no network runs before them, to the last bit."""
    stores = [open_store(folder, fabric) for folder in (one, several)]
    finished = sorted((several / "artifacts").iterdir())
    for case in cases:
        expected, found = (shared_ratio.trained(store, case) for store in stores)
        assert found.key == expected.key
        theirs, ours = expected.tensors(WEIGHTS), found.tensors(WEIGHTS)
        if case == "networks":
            for name in ("mean", "scale"):  # of the features of real images
                torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)
            losses = [[entry["loss"] for entry in artifact.summary["history"]] for artifact in (found, expected)]
            assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        else:
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)
            assert found.summary == expected.summary
    assert sorted((several / "artifacts").iterdir()) == finished  # nothing was computed again
    for store in stores:
        store.close()


@pytest.mark.long
def test_three_processes_train_the_ratios_of_one(tmp_path: Path, fabric: Fabric) -> None:
    assert in_processes(3, RUN, tmp_path / "three", list(shared_ratio.CASES)) == ""
    check_equal(list(shared_ratio.CASES), tmp_path / "one", tmp_path / "three", fabric)


@pytest.mark.long
def test_two_processes_go_on_where_one_ended_and_one_where_two_did(tmp_path: Path, fabric: Fabric) -> None:
    """Ended by an error of the second process, by SIGTERM, and by the death of the second; each in its third block."""
    folder = tmp_path / "several"
    one_and_two_go_on(shared_ratio.trained, saved_blocks, folder, fabric)
    check_equal(["classes"], tmp_path / "one", folder, fabric)


def saved_blocks(folder: Path) -> int:
    (checkpoint,) = (folder / "work").glob("train_density_ratio-*/checkpoint-train-fakes*.safetensors")
    return int(load_tensors(checkpoint)[1]["step"])
