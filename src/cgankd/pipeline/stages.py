"""The stages of the road: plain functions of what they are given, called through the store (core/store.py).

Each writes what it makes to ``work`` and returns a summary, as JSON. What it takes of earlier stages are sources
(a trained network, a generator, kept images), which it opens when it needs them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.settings import (
    AugmentSettings,
    FitSettings,
    GanSettings,
    GeneratorMetricsSettings,
    RatioFitSettings,
    ScalarLabelSettings,
)
from cgankd.core import rng
from cgankd.core.store import Artifact, Work, stage
from cgankd.data import preview
from cgankd.data.imageset import ImageSet, Splits, TrainingImages, UnlabelledImages
from cgankd.distill import SUPERVISED, MethodStack
from cgankd.gan.generator import GeneratorSource, Sampler, keep_generator
from cgankd.gan.train import train_gan
from cgankd.labels import LabelPlan, label_space, ratio_embedding
from cgankd.metrics import cost, robustness
from cgankd.metrics.generator_quality import Processed, RealImages, measure_quality
from cgankd.nets import attention, inference, pretrained, weights
from cgankd.nets.build import (
    WEIGHTS,
    Architecture,
    ModuleNetwork,
    NetworkSource,
    StoredNetwork,
    fresh_network,
    keep_network,
)
from cgankd.pipeline.inputs import Extractor, ProposalSource, Student, Surroundings, Teachers
from cgankd.synthesis import checks
from cgankd.synthesis.autoencoder import keep_autoencoder, new_autoencoder, train_autoencoder
from cgankd.synthesis.density_ratio import Pairs, RatioNetwork, keep_ratio, real_and_fakes, train_ratio
from cgankd.synthesis.rejection import Rule
from cgankd.synthesis.store import StoredFakes, keep_fakes
from cgankd.synthesis.synthesize import BurnIn, FilterRule, draw_burn_in, draw_errors, synthesize
from cgankd.tasks import Task
from cgankd.teachers.black_box import BlackBox
from cgankd.training import scoring
from cgankd.training.loop import fit as train

# --- data and networks --------------------------------------------------------------------------------------------


@stage()
def describe_data(work: Work, *, splits: Splits) -> dict[str, Any]:
    """Counts, label histograms and a few images, for the report."""
    work.save("preview", preview.examples(splits.train, splits.task))
    return preview.describe(splits)


@stage()
def train_network(
    work: Work,
    *,
    network: Architecture,
    start: pretrained.PretrainedWeights | None,
    images: TrainingImages,
    fit: FitSettings,
    around: Surroundings,
    seed: int,
) -> dict[str, Any]:
    """A network that learns from labels alone: a teacher, or the classifier whose features the density ratio sees."""
    student = Student(network, MethodStack(SUPERVISED), start)
    return _train(work, student, None, images, fit, around, seed)


@stage()
def train_student(
    work: Work,
    *,
    student: Student,
    teachers: Teachers | None,
    images: TrainingImages,
    fit: FitSettings,
    around: Surroundings,
    seed: int,
) -> dict[str, Any]:
    """The student of one row: alone, or distilled from ``teachers``."""
    return _train(work, student, teachers, images, fit, around, seed)


def _train(
    work: Work,
    student: Student,
    teachers: Teachers | None,
    images: TrainingImages,
    settings: FitSettings,
    around: Surroundings,
    seed: int,
) -> dict[str, Any]:
    task = around.task
    network, summary = _start(student, around.train, task, seed)
    history = train(
        work,
        network,
        student.methods.create(task),
        dataclasses.replace(images, validation=around.val),
        settings,
        seed=seed,
        teacher=None if teachers is None else teachers.open(task, work.fabric),
        outputs_folder=None if teachers is None else work.cache_for("teacher_outputs", teachers),
    )
    summary |= keep_network(work, network, student.network, around.train, task.num_outputs)
    summary |= {**score(work, network, student.network.name, around), "history": history}
    if gates := attention.gates(network):
        work.save("attention", scoring.attention_per_bin(work, network, around.val, task))
        summary["attention"] = {"stages": [gate.stage for gate in gates.values()]}
    return {**summary, "images": len(images.real.open())}


def _start(student: Student, normalised_by: ImageSet, task: Task, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """The network before its training, and what the summary says of that."""
    network = fresh_network(student.network, normalised_by, task.num_outputs, seed)
    if isinstance(student.start, StoredNetwork):
        start = student.start.artifact.folder / f"{WEIGHTS}.safetensors"
        weights.load_weights(network, start, may_lack=f"{attention.HOME}.")
        return network, {}
    return network, {} if student.start is None else {"started_anew": student.start.load_into(network)}


@stage()
def train_trial(
    work: Work,
    *,
    network: Architecture,
    start: StoredNetwork | None,
    images: TrainingImages,
    fit: FitSettings,
    val: ImageSet,
    task: Task,
    normalised_by: ImageSet,
    seed: int,
) -> dict[str, Any]:
    """A student of the search, which is scored on the validation split alone: no choice sees the test split."""
    student = _start(Student(network, MethodStack(SUPERVISED), start), normalised_by, task, seed)[0]
    history = train(work, student, MethodStack(SUPERVISED).create(task), images, fit, seed=seed)
    return {"val": scoring.metric(work, student, val, task)[0], "history": history}


@stage()
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
    """A student that is a module of the user's own program, trained from the weights that it has."""
    history = train(
        work,
        student.module,
        methods.create(task),
        images,
        fit,
        seed=seed,
        teacher=None if teachers is None else teachers.open(task, work.fabric),
        outputs_folder=None if teachers is None else work.cache_for("teacher_outputs", teachers),
    )
    work.save(WEIGHTS, student.module.state_dict())
    return {"history": history}


@stage()
def load_network(work: Work, *, network: Architecture, file: Path, around: Surroundings) -> dict[str, Any]:
    """A teacher that was trained elsewhere, from a file of weights."""
    made = fresh_network(network, around.train, around.task.num_outputs, 0)
    weights.load_weights(made, file)
    kept = keep_network(work, made, network, around.train, around.task.num_outputs)
    return {**kept, **score(work, made, network.name, around), "history": [], "images": None}


@stage()
def score_black_box(work: Work, *, teacher: BlackBox, name: str, around: Surroundings) -> dict[str, Any]:
    """A teacher that only answers: how good its answers are."""
    scores = score(work, teacher, name, around)
    return {**scores, "only_answers": True, "history": [], "images": None}


def score(work: Work, predictor: inference.Predictor, name: str, around: Surroundings) -> dict[str, Any]:
    """Scores, size and time; None for what can't be known of a teacher that only answers."""
    shape = (around.test.channels, *around.test.size)
    module = predictor if isinstance(predictor, nn.Module) else None
    test, per_bin = _metric(work, predictor, around.test, around.task, "test")
    return {
        "network": name,
        "parameters": None if module is None else cost.parameters(module),
        "val": _metric(work, predictor, around.val, around.task, "validation")[0],
        "test": test,
        "test_per_bin": per_bin,
        "latency_ms": None if module is None else cost.latency_ms(module, shape),
    }


def _metric(
    work: Work, predictor: inference.Predictor, images: ImageSet, task: Task, name: str
) -> tuple[float, list[float | None]] | tuple[None, None]:
    if isinstance(predictor, BlackBox) and not predictor.knows(images.images):
        return None, None
    return scoring.metric(work, predictor, images, task, name)


@stage()
def train_encoder(
    work: Work,
    *,
    network: Architecture,
    steps: int,
    batch_size: int,
    augment: AugmentSettings,
    train: ImageSet,
    task: Task,
    seed: int,
) -> dict[str, Any]:
    """The sparse auto-encoder whose code the density ratio may see."""
    autoencoder = new_autoencoder(network, train, task, seed)
    history = train_autoencoder(work, autoencoder, task, train, steps, batch_size, augment, seed=seed)
    kept = keep_autoencoder(work, autoencoder, network, train, task)
    return {**kept, "history": history, "parameters": cost.parameters(autoencoder)}


# --- generator and density ratio ----------------------------------------------------------------------------------


@stage()
def train_generator(
    work: Work,
    *,
    train: ImageSet,
    task: Task,
    gan: GanSettings,
    scalar: ScalarLabelSettings | None,
    seed: int,
) -> dict[str, Any]:
    """The conditional GAN. scalar: how scalar labels enter it; None for classes."""
    sampler, history = train_gan(work, train, task, gan, scalar, seed=seed)
    kept = keep_generator(work, sampler, gan, scalar, task, train)
    _preview_generator(work, sampler, train, task, seed)
    return {**kept, "parameters": cost.parameters(sampler.network), "history": history}


@stage()
def show_generator(work: Work, *, generator: GeneratorSource, train: ImageSet, task: Task, seed: int) -> dict[str, Any]:
    """A few images of what takes a GAN's place, for the report."""
    _preview_generator(work, generator.open(work.fabric), train, task, seed)
    return {"parameters": None, "history": []}


def _preview_generator(work: Work, sampler: Sampler, train: ImageSet, task: Task, seed: int) -> None:
    labels = preview.examples(train, task)["labels"]
    images = sampler.sample(task.to_target(labels), torch.arange(len(labels)), seed)
    work.save("preview", {"images": images, "labels": labels, "bin": task.bins(labels)[1]})


@stage(version=3)
def train_density_ratio(
    work: Work,
    *,
    train: ImageSet,
    val: ImageSet | None,
    task: Task,
    generator: GeneratorSource,
    extractor: Extractor,
    settings: RatioFitSettings,
    seed: int,
) -> dict[str, Any]:
    """The conditional density ratio, on features that are computed once. val: one half of it chooses the
    weights, the other checks them."""
    space, sampler = label_space(task, task.to_target(train.labels)), generator.open(work.fabric)
    with extractor.open(work.fabric) as opened:

        def pairs(images: ImageSet, stream: str) -> Pairs:
            numbers = rng.key(seed, stream)
            return real_and_fakes(work.within(stream), images, task, space, sampler, opened, settings, numbers)

        known = pairs(train, "train")
        held_out = None if val is None else pairs(val, "held out")
    embedding = ratio_embedding(task, RatioNetwork.LABEL_DIM)
    chosen_by = checked_on = None
    if held_out is not None:
        halves = [held_out.take(rows) for rows in checks.halves(len(held_out.real), seed)]
        chosen_by, checked_on = (half.take(half.usable) for half in halves)
    network, history = train_ratio(work, known, embedding, settings, seed=seed, held_out=chosen_by)
    summary = {**keep_ratio(work, network, settings, task), "history": history, "left_out": known.left_out}
    if checked_on is not None:
        pools = space.pools(checked_on.targets)
        summary |= checks.check(*network.values(checked_on), checked_on.valid, pools)
    return summary


# --- synthesis ----------------------------------------------------------------------------------------------------


@stage()
def burn_in(work: Work, *, source: ProposalSource, plan: LabelPlan) -> dict[str, Any]:
    """The density ratios of fakes, which set how many are accepted first."""
    with source.open(work.fabric) as proposals:
        drawn = draw_burn_in(work, proposals, plan)
    work.save("ratios", {"ratio": drawn.ratio, "label": drawn.label})
    return {"fakes": len(drawn.ratio)}


def read_burn_in(artifact: Artifact | None) -> BurnIn | None:
    """What :func:`burn_in` kept."""
    return None if artifact is None else BurnIn(**artifact.tensors("ratios"))


@stage()
def calibrate_filter(
    work: Work,
    *,
    source: ProposalSource,
    plan: LabelPlan,
    burn_in: Artifact | None,
    rule: Rule | None,
) -> dict[str, Any]:
    """The errors of subsampled fakes, which the thresholds of the filter are quantiles of."""
    drawn = read_burn_in(burn_in)
    acceptance = None if drawn is None or rule is None else drawn.acceptance(plan, rule)
    with source.open(work.fabric) as proposals:
        errors, group = draw_errors(work, proposals, plan, acceptance)
    work.save("errors", {"error": errors, "group": group})
    return {"fakes": len(errors)}


@stage()
def make_images(
    work: Work,
    *,
    source: ProposalSource,
    plan: LabelPlan,
    burn_in: Artifact | None,
    rule: Rule | None,
    calibration: Artifact | None,
    rho: float | None,
    keep_probabilities: bool,
) -> dict[str, Any]:
    """Generated images that were accepted and not filtered out, with the teachers' predictions beside them."""
    filter_rule = None
    if calibration is not None and rho is not None:
        errors = calibration.tensors("errors")
        filter_rule = FilterRule(errors["error"], errors["group"], rho)
    with source.open(work.fabric) as proposals:
        result = synthesize(
            work,
            proposals,
            plan,
            rule=rule,
            burn_in=read_burn_in(burn_in),
            filter_rule=filter_rule,
            keep_probabilities=keep_probabilities,
        )
    work.save("samples", result.samples)
    return {**keep_fakes(work, result.fakes), **result.summary}


@stage()
def pseudo_label(work: Work, *, images: UnlabelledImages, teacher: NetworkSource, task: Task) -> dict[str, Any]:
    """The teacher's labels for real images that nobody labelled for the owner."""
    outputs = inference.outputs(work, teacher.open(work.fabric), images.images)
    work.save("labels", {"labels": task.predict(outputs)})
    return {"images": len(outputs)}


# --- measurements -------------------------------------------------------------------------------------------------


@stage()
def measure_generator(
    work: Work,
    *,
    real: RealImages,
    generator: GeneratorSource,
    fakes: StoredFakes,
    real_share: float | None,
    features: dict[str, NetworkSource],
    black_box: BlackBox | None,
    settings: GeneratorMetricsSettings,
    seed: int,
) -> dict[str, Any]:
    """How good the generated images are, whether they are copies, and the terms of the error bound.

    features: the networks whose penultimate layers distances are taken in. black_box: a teacher that only answers.
    """
    asked, taught = dataclasses.replace(fakes, replace="none").open(), fakes.open()
    summary, pairs = measure_quality(
        work,
        real,
        generator.open(work.fabric),
        Processed(asked, taught.labels, fakes.replace != "none", real_share),
        {name: _module(source, work.fabric) for name, source in features.items()},
        settings,
        seed=seed,
        teacher=black_box,
    )
    work.save("pairs", pairs)
    return summary


@stage()
def attack_network(
    work: Work, *, network: StoredNetwork, test: ImageSet, task: Task, attack: robustness.Attack, seed: int
) -> dict[str, Any]:
    """What is left of a network's score where test images are changed to mislead it."""
    return robustness.measure(work, network.open(work.fabric), test, task, attack, seed=seed)


def _module(source: NetworkSource, fabric: Fabric) -> nn.Module:
    network = source.open(fabric)
    assert isinstance(network, nn.Module)
    return network
