"""Stages that describe the data, and train, load and score teachers and students."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from cgankd.config.settings import FitSettings
from cgankd.core import ranks
from cgankd.core.store import Artifact, Work, stage
from cgankd.data import preview
from cgankd.data.imageset import ImageSet, Splits, TrainingImages
from cgankd.distill import SUPERVISED, MethodStack
from cgankd.metrics import cost
from cgankd.nets import attention, inference, pretrained, weights
from cgankd.nets.build import (
    BEST,
    WEIGHTS,
    Architecture,
    ModuleNetwork,
    StoredNetwork,
    fresh_network,
    keep_network,
)
from cgankd.pipeline.inputs import Student, Surroundings, Teachers
from cgankd.tasks import Task
from cgankd.teachers.black_box import BlackBox
from cgankd.teachers.jury import Jury
from cgankd.training import scoring
from cgankd.training.best import BestWeights, Kept
from cgankd.training.second_try import fit_with_second_try as train


@stage()
def describe_data(work: Work, *, splits: Splits) -> dict[str, Any]:
    """Counts, label histograms and a few images, for the report."""
    work.save("preview", preview.examples(splits.train, splits.task))
    return preview.describe(splits)


@stage(version=2, together=True)  # versions 1 and 3 (below) had losses that were not calibrated
def train_network(
    work: Work,
    *,
    network: Architecture,
    start: pretrained.PretrainedWeights | None,
    images: TrainingImages,
    fit: FitSettings,
    val: ImageSet,
    task: Task,
    seed: int,
) -> dict[str, Any]:
    """A network trained on labels alone: a teacher, or the classifier for the features of the density ratio.

    It is not scored on the test split, so that with other test images nothing that depends on it is trained anew.
    """
    student = Student(network, MethodStack(SUPERVISED), start)
    module, summary = _train(work, student, None, images, fit, val, task, seed)
    return {**summary, "parameters": cost.parameters(module), **_val_scores(work, module, val, task)}


@stage(version=4, together=True)  # version 1 kept the last weights alone; 2 had scores on the test split too
def train_student(
    work: Work,
    *,
    student: Student,
    teachers: Teachers | None,
    images: TrainingImages,
    fit: FitSettings,
    val: ImageSet,
    task: Task,
    seed: int,
) -> dict[str, Any]:
    """The student of one row or trial: trained on labels alone, or distilled from ``teachers``.

    Its last weights and those with the best validation score are both kept. Both are scored on the validation split
    alone, because choices are made between students, and no choice may use the test split.
    """
    best = BestWeights(task)
    network, summary = _train(work, student, teachers, images, fit, val, task, seed, best)
    summary |= {"parameters": cost.parameters(network), **_val_scores(work, network, val, task)}
    if gates := attention.gates(network):
        work.save("attention", scoring.attention_per_bin(work, network, val, task))
        summary["attention"] = {"stages": [gate.stage for gate in gates.values()]}
    work.save(BEST, best.tensors)
    network.load_state_dict(best.tensors)
    return {**summary, "best": {"step": best.step, **_val_scores(work, network, val, task, "best weights on ")}}


@stage(together=True)
def score_student(work: Work, *, student: Artifact, test: ImageSet, task: Task) -> dict[str, Any]:
    """The scores on the test split of a student's last weights, and of its best ones, and its latency."""
    last = StoredNetwork(student, WEIGHTS).open(work.fabric)
    scores = {**_test_scores(work, last, test, task), "latency_ms": _latency(last, test)}
    best = StoredNetwork(student, BEST).open(work.fabric)
    return {**scores, "best": _test_scores(work, best, test, task, "best weights on ")}


def _train(
    work: Work,
    student: Student,
    teachers: Teachers | None,
    images: TrainingImages,
    settings: FitSettings,
    val: ImageSet,
    task: Task,
    seed: int,
    best: BestWeights | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The network with its last weights, which are kept, and its summary. best: also keeps the best weights."""
    real = images.real.open()
    network, summary = _start(student, real, task, seed)
    history, second_try = train(
        work,
        network,
        lambda: student.methods.create(task),
        dataclasses.replace(images, validation=val),
        settings,
        seed=seed,
        teacher=None if teachers is None else teachers.open(task, work.fabric),
        kept=Kept(_teacher_outputs(work, teachers), best),
    )
    summary |= keep_network(work, network, student.network, real, task.num_outputs)
    name = student.network.name
    return network, {**summary, "network": name, "history": history, "second_try": second_try, "images": len(real)}


def _teacher_outputs(work: Work, teachers: Teachers | None) -> Path | None:
    return None if teachers is None else work.cache_for("teacher_outputs", teachers)


def _start(student: Student, normalised_by: ImageSet, task: Task, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """The network before its training, and entries of the summary on its initial weights.

    normalised_by: the real images that it is trained on, whose statistics normalise its inputs.
    """
    network = fresh_network(student.network, normalised_by, task.num_outputs, seed)
    if isinstance(student.start, StoredNetwork):
        start = student.start.artifact.folder / f"{WEIGHTS}.safetensors"
        weights.load_weights(network, start, may_lack=f"{attention.HOME}.")
        return network, {}
    return network, {} if student.start is None else {"started_anew": student.start.load_into(network)}


@stage(together=True)
def train_module(
    work: Work,
    *,
    student: ModuleNetwork,
    methods: MethodStack,
    teachers: Teachers | None,
    images: TrainingImages,
    fit: FitSettings,
    task: Task,
    seed: int,
) -> dict[str, Any]:
    """A student that is a module of the user's program, trained from its current weights."""
    history, second_try = train(
        work,
        student.module,
        lambda: methods.create(task),
        images,
        fit,
        seed=seed,
        teacher=None if teachers is None else teachers.open(task, work.fabric),
        kept=Kept(_teacher_outputs(work, teachers)),
    )
    work.save(WEIGHTS, student.module.state_dict())
    return {"history": history, "second_try": second_try}


@stage(version=2)
def load_network(
    work: Work, *, network: Architecture, file: Path, normalised_by: ImageSet, val: ImageSet, task: Task
) -> dict[str, Any]:
    """A teacher that was trained elsewhere, from a file of weights; not scored on the test split, as above.

    normalised_by: images whose statistics normalise its inputs, if the file holds none.
    """
    module = fresh_network(network, normalised_by, task.num_outputs, 0)
    weights.load_weights(module, file)
    entries = {
        **keep_network(work, module, network, normalised_by, task.num_outputs),
        "network": network.name, "parameters": cost.parameters(module), "history": [], "images": None,
    }  # fmt: skip
    return {**entries, **_val_scores(work, module, val, task)}


@stage(together=True)
def score_teacher(work: Work, *, teacher: StoredNetwork, test: ImageSet, task: Task) -> dict[str, Any]:
    """The scores of a teacher's network on the test split, and its latency."""
    network = teacher.open(work.fabric)
    return {**_test_scores(work, network, test, task), "latency_ms": _latency(network, test)}


def with_scores(network: Artifact, tested: Artifact) -> Artifact:
    """A network with its scores on the test split in its summary too, which is empty until both are there."""
    if not (network.summary and tested.summary):
        return dataclasses.replace(network, summary={})
    summary = {**network.summary, **tested.summary}
    if "best" in network.summary:
        summary["best"] = {**network.summary["best"], **tested.summary["best"]}
    return dataclasses.replace(network, summary=summary)


@stage(version=2)
def score_black_box(work: Work, *, teacher: BlackBox, name: str, around: Surroundings) -> dict[str, Any]:
    """The scores of a black-box teacher; None for what is not known of it."""
    return {
        "network": name, "parameters": None, "latency_ms": None, "only_answers": True, "history": [], "images": None,
        **_test_scores(work, teacher, around.test, around.task),
        **_val_scores(work, teacher, around.val, around.task),
    }  # fmt: skip


@stage(version=2)
def score_vote(work: Work, *, teachers: Teachers, around: Surroundings) -> dict[str, Any]:
    """The scores of the vote of several teachers on both splits."""
    jury = teachers.open(around.task, work.fabric)
    assert jury is not None
    return {**_test_scores(work, jury, around.test, around.task), **_val_scores(work, jury, around.val, around.task)}


def _val_scores(
    work: Work, predictor: inference.Predictor, val: ImageSet, task: Task, which: str = ""
) -> dict[str, Any]:
    """The metric on the validation split, and the task's calibrated loss there, which orders networks whose ``val`` may
    be equal.

    None where a black box has no outputs for the split. which: of whose scores these are, for the name of the pass over
    the images: "best weights on ".
    """
    scores = _scored(work, predictor, val, task, f"{which}validation")
    return {"val": None if scores is None else scores.total, "val_loss": None if scores is None else scores.loss}


def _test_scores(
    work: Work, predictor: inference.Predictor, test: ImageSet, task: Task, which: str = ""
) -> dict[str, Any]:
    """The metric on the test split; None where a black box has no outputs for it. which: as in :func:`_val_scores`.

    ``same_answer`` is the prediction for nearly all test images, as text; None where predictions differ.
    """
    scores = _scored(work, predictor, test, task, f"{which}test")
    return {
        "test": None if scores is None else scores.total,
        "test_per_bin": None if scores is None else scores.per_bin,
        "same_answer": None if scores is None else scores.same_answer,
    }


def _latency(network: nn.Module, images: ImageSet) -> float:
    return ranks.first_of_team(lambda: cost.latency_ms(network, (images.channels, *images.size)))


def _scored(
    work: Work, predictor: inference.Predictor, images: ImageSet, task: Task, name: str
) -> scoring.Scores | None:
    if isinstance(predictor, (BlackBox, Jury)) and not predictor.knows(images.images):
        return None
    return scoring.scored(work, predictor, images, task, name)
