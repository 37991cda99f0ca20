"""Several processes ask the teacher and score the student: outputs, their files and scores are those of one process."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import shared_outputs
import torch
from lightning_fabric import Fabric

from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors
from cgankd.core.row_file import open_rows
from cgankd.core.store import Work
from cgankd.nets.build import BEST, WEIGHTS, StoredNetwork
from cgankd.training import scoring
from ends import main, open_store
from works import in_processes

RUN = functools.partial(main, shared_outputs.made)


def made(folder: Path, case: str, fabric: Fabric) -> None:
    store = open_store(folder, fabric)
    try:
        shared_outputs.made(store, case)
    finally:
        store.close()


def outputs(folder: Path) -> dict[str, bytes]:
    """The files of the cache, without the folders of environments, which are the same for all."""
    files = sorted((folder / "cache").glob("*/teacher_outputs-*/*"))
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


def saved_blocks(folder: Path) -> int:
    """The number of blocks in the cache whose checksum is written."""
    sums = (folder / "cache").glob("*/teacher_outputs-*/*.sums")
    return sum(int((open_rows(path, (), torch.int64) != 0).sum()) for path in sums)


def saved_passes(folder: Path) -> int:
    (checkpoint,) = (folder / "work").glob("squares-*/checkpoint-squares.safetensors")
    return int(load_tensors(checkpoint)[1]["step"])


def check_student(folder: Path, case: str, fabric: Fabric) -> None:
    """The scores and the attention that the artifact holds are those of its weights, to the last bit."""
    store = open_store(folder, fabric)
    artifact = shared_outputs.made(store, case)
    tested = shared_outputs.tested(store, artifact).summary
    store.close()
    around, summary = (shared_outputs.noise(510, 5), shared_outputs.noise(260, 6)), artifact.summary
    for weights, entries in (
        (WEIGHTS, {**summary, **tested}),
        (BEST, {**summary["best"], **tested["best"]}),
    ):
        network = StoredNetwork(artifact, weights).open(fabric)
        val, test = (scoring.scored(Work(fabric), network, images, shared_outputs.TASK) for images in around)
        assert (entries["val"], entries["test"]) == (val.total, test.total)
        assert entries["test_per_bin"] == test.per_bin
    assert [entry["val"] for entry in summary["history"]][-1] == summary["val"]
    assert [entry["val"] for entry in summary["history"] if entry["step"] == summary["best"]["step"]] == [
        summary["best"]["val"]
    ]
    network = StoredNetwork(artifact).open(fabric)
    attention = scoring.attention_per_bin(Work(fabric), network, around[0], shared_outputs.TASK)
    torch.testing.assert_close(artifact.tensors("attention"), attention, rtol=0.0, atol=0.0)
    assert tested["latency_ms"] > 0.0


@pytest.mark.long
def test_three_processes_store_the_outputs_of_one_and_score_alike(tmp_path: Path, fabric: Fabric) -> None:
    """Blocks of 2 images; the last one of the fakes has 1."""
    cases = ["service", "network", "vote", "pass"]
    assert in_processes(3, RUN, tmp_path / "three", cases) == ""
    for case in cases:
        made(tmp_path / "one", case, fabric)
    assert len(outputs(tmp_path / "one")) == 12  # rows and sums of two sets and three teachers
    assert outputs(tmp_path / "three") == outputs(tmp_path / "one")
    for case in ("service", "network", "vote"):
        check_student(tmp_path / "three", case, fabric)


@pytest.mark.long
def test_two_processes_ask_a_service_about_fresh_views_by_the_first_one_alone(tmp_path: Path, fabric: Fabric) -> None:
    assert in_processes(2, RUN, tmp_path / "two", ["fresh"]) == ""
    losses = []
    for folder in ("one", "two"):
        store = open_store(tmp_path / folder, fabric)
        losses.append([entry["loss"] for entry in shared_outputs.made(store, "fresh").summary["history"]])
        store.close()
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.long
def test_two_processes_go_on_where_one_ended_and_one_where_two_did(tmp_path: Path, fabric: Fabric) -> None:
    """Ended by an error of the second process, by SIGTERM, and by the death of the second; each at its third block."""
    folder = tmp_path / "several"
    for case, saved in (("pass/refused", saved_passes), ("sums/refused", saved_blocks)):
        with pytest.raises(UserError):
            made(folder, case, fabric)
        assert saved(folder) == 2

    cases = ["pass/refused", "pass", "service", "sums/refused", "sums/stopped", "sums/killed"]
    said = in_processes(2, RUN, folder, cases, code=1).splitlines()
    expected = [
        "2 the pixels are gone",
        "2 the pixels are gone",
        "75 stopped, because it was asked to stop (SIGTERM);",
        "1 process 1 of 2 stopped, because another one has ended or can't be reached (",
    ]
    assert len(said) == len(expected), said  # the first process speaks for both
    assert all(line.startswith(words) for line, words in zip(said, expected, strict=True)), said
    made(tmp_path / "one", "service", fabric)
    assert saved_blocks(folder) - saved_blocks(tmp_path / "one") == 2 + 4 + 6 + 4

    for one_or_several in (folder, tmp_path / "one"):
        made(one_or_several, "sums", fabric)
    assert outputs(folder) == outputs(tmp_path / "one")
    for case in ("sums", "service"):
        check_student(folder, case, fabric)
    (artifact,) = (folder / "artifacts").glob("squares-*/artifact.json")
    assert json.loads(artifact.read_text())["summary"]["squares"] == [float(row**2) for row in range(17)]
