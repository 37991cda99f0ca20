"""Several processes train one network: the weights are those of one process, for every method."""

from __future__ import annotations

import functools
import pickle
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import shared_lessons
import torch
from lightning_fabric import Fabric

from cgankd.core import ranks
from cgankd.core.files import load_tensors
from cgankd.distill import METHODS
from cgankd.training.faults import NotFinite
from works import in_processes, torch_has_parts

# What is exchanged differs: nothing but outputs; cached outputs; pairs of images; maps and layers with batch
# normalisation of their own; gradients by images; extra views and a head that is trained before; a network that is
# trained before; images mixed with those of the other process; a layer that only one of them needs. Then two GANs.
LESSONS = [
    "supervised", "supervised/clipped", "supervised/attacked", "kd/cached", "kd/no-views", "kd/mixed", "rkd", "fitnet",
    "kd+kdiga", "kd+sskd", "takd", "crd@fake", "supervised/branch", "gan/classes", "gan/scalars",
]  # fmt: skip
GANS = [f"gan/{name}" for name in shared_lessons.GANS if name != "killed"]


in_parts = functools.partial(shared_lessons.main, strategy="fsdp")
needs_parts = pytest.mark.skipif(not torch_has_parts(), reason="this torch is too old")


class Stopped(Exception):
    pass


def stop() -> None:
    raise Stopped


def check_equal(lessons: Sequence[str], one: Path, several: Path, fabric: Fabric) -> None:
    """Both folders hold the lessons, and all weights have moved alike."""
    stores = [shared_lessons.open_store(folder, fabric) for folder in (one, several)]
    for lesson in lessons:
        expected, found = (shared_lessons.learn(store, lesson) for store in stores)
        assert list(found) == list(expected)
        for name, change in expected.items():
            largest = float(change.abs().max())
            torch.testing.assert_close(
                found[name], change, rtol=0.0, atol=5e-3 * largest + 1e-6, msg=f"{lesson} {name}"
            )
    for store in stores:
        store.close()


def test_two_processes_end_with_the_weights_of_one(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lesson was begun by one process; two go on with it, as copies of one that ran a command before."""
    monkeypatch.setattr(ranks._here, "alone", True)  # so a command ends
    begun = shared_lessons.open_store(tmp_path / "two", fabric, shared_lessons.AtSecondStep(stop))
    with pytest.raises(Stopped):
        shared_lessons.learn(begun, LESSONS[0])
    begun.close()
    (checkpoint,) = (tmp_path / "two" / "work").glob("train_module-*/checkpoint.safetensors")
    assert load_tensors(checkpoint)[1]["step"] == "1"

    in_processes(2, shared_lessons.main, tmp_path / "two", LESSONS)
    finished = sorted((tmp_path / "two" / "artifacts").iterdir())
    assert len(finished) == len(LESSONS)
    check_equal(LESSONS, tmp_path / "one", tmp_path / "two", fabric)
    assert sorted((tmp_path / "two" / "artifacts").iterdir()) == finished  # nothing was computed again


@needs_parts
def test_two_processes_that_hold_a_network_in_parts_end_with_the_weights_of_one(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lesson was begun by one process that held it whole. Methods train whole networks."""
    lessons = ["supervised/clipped", "supervised/branch-undecayed", "supervised/transformer", "kd/cached"]
    monkeypatch.setattr(ranks._here, "alone", True)
    begun = shared_lessons.open_store(tmp_path / "two", fabric, shared_lessons.AtSecondStep(stop))
    with pytest.raises(Stopped):
        shared_lessons.learn(begun, lessons[0])
    begun.close()
    in_processes(2, in_parts, tmp_path / "two", lessons)
    check_equal(lessons, tmp_path / "one", tmp_path / "two", fabric)


@needs_parts
@pytest.mark.long
def test_four_processes_that_hold_a_network_in_parts_end_with_the_weights_of_one(
    tmp_path: Path, fabric: Fabric
) -> None:
    lessons = [f"supervised/{variant}" for variant in ("", "attacked", "mixed", "cached", "no-views")]
    in_processes(4, in_parts, tmp_path / "four", lessons)
    check_equal(lessons, tmp_path / "one", tmp_path / "four", fabric)


@needs_parts
@pytest.mark.long
def test_one_process_goes_on_where_two_that_held_parts_were_killed(tmp_path: Path, fabric: Fabric) -> None:
    in_processes(2, in_parts, tmp_path / "two", ["supervised/killed"], code=-signal.SIGKILL)
    check_equal(["supervised/killed"], tmp_path / "one", tmp_path / "two", fabric)


@pytest.mark.long
def test_four_processes_end_with_the_weights_of_one_for_every_method(tmp_path: Path, fabric: Fabric) -> None:
    in_processes(4, shared_lessons.main, tmp_path / "four", sorted(METHODS))
    check_equal(sorted(METHODS), tmp_path / "one", tmp_path / "four", fabric)


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_end_with_the_generator_of_one_for_every_term(
    count: int, tmp_path: Path, fabric: Fabric
) -> None:
    in_processes(count, shared_lessons.main, tmp_path / "several", GANS)
    check_equal(GANS, tmp_path / "one", tmp_path / "several", fabric)


@pytest.mark.long
@pytest.mark.parametrize(("lesson", "stage"), [("kd/killed", "train_module"), ("gan/killed", "train_generator")])
def test_one_process_goes_on_where_two_were_killed(lesson: str, stage: str, tmp_path: Path, fabric: Fabric) -> None:
    said = in_processes(2, shared_lessons.main, tmp_path / "two", [lesson], code=-signal.SIGKILL)
    assert "process 2 of 2 stopped, because another one has ended or can't be reached (" in said
    (checkpoint,) = (tmp_path / "two" / "work").glob(f"{stage}-*/checkpoint.safetensors")
    assert load_tensors(checkpoint)[1]["step"] == "1"
    check_equal([lesson], tmp_path / "one", tmp_path / "two", fabric)


def test_an_error_of_the_first_process_can_be_sent_to_the_others() -> None:
    sent = pickle.loads(pickle.dumps(NotFinite("the loss is nan", "a lower rate may help")))
    assert (str(sent), sent.fault) == ("the loss is nan; a lower rate may help", "the loss is nan")
