"""Several processes draw images: the set, its counts and its checkpoints are those of one process."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import shared_synthesis
import torch
from lightning_fabric import Fabric

from cgankd.core.files import load_tensors
from cgankd.synthesis.store import StoredFakes
from ends import main, one_and_two_go_on, open_store
from works import in_processes

RUN = functools.partial(main, shared_synthesis.drawn)


def check_equal(cases: list[str], one: Path, several: Path, fabric: Fabric) -> None:
    """Both folders hold the same images, labels and columns; where no network runs, to the last bit, and summaries."""
    stores = [open_store(folder, fabric) for folder in (one, several)]
    finished = sorted((several / "artifacts").iterdir())
    for case in cases:
        expected, found = (shared_synthesis.drawn(store, case) for store in stores)
        assert found.key == expected.key
        near = {"rtol": 1e-4, "atol": 1e-4} if case == "networks" else {"rtol": 0.0, "atol": 0.0}
        theirs, ours = StoredFakes(expected).open(), StoredFakes(found).open()
        assert len(ours) == len(theirs) > 0
        pixels = {**near, "atol": 1.0} if case == "networks" else near
        torch.testing.assert_close(ours.images.float(), theirs.images.float(), **pixels)
        assert torch.equal(ours.labels, theirs.labels)
        torch.testing.assert_close(ours.columns, theirs.columns, **near)
        if case != "networks":
            assert found.summary == expected.summary
            assert {name: rows.tolist() for name, rows in found.tensors("samples").items()} == {
                name: rows.tolist() for name, rows in expected.tensors("samples").items()
            }
    assert sorted((several / "artifacts").iterdir()) == finished  # nothing was computed again
    for store in stores:
        store.close()


@pytest.mark.long
def test_three_processes_make_the_images_of_one(tmp_path: Path, fabric: Fabric) -> None:
    assert in_processes(3, RUN, tmp_path / "three", list(shared_synthesis.CASES)) == ""
    check_equal(list(shared_synthesis.CASES), tmp_path / "one", tmp_path / "three", fabric)


@pytest.mark.long
def test_two_processes_go_on_where_one_ended_and_one_where_two_did(tmp_path: Path, fabric: Fabric) -> None:
    """Ended by an error of the second process, by SIGTERM, and by the death of the second; each in its third batch."""
    folder = tmp_path / "several"
    one_and_two_go_on(shared_synthesis.drawn, saved_batches, folder, fabric)
    check_equal(["classes"], tmp_path / "one", folder, fabric)


def saved_batches(folder: Path) -> int:
    (checkpoint,) = (folder / "work").glob("make_images-*/checkpoint.safetensors")
    return int(load_tensors(checkpoint)[1]["step"])
