"""Measurements besides the students' scores: quality of the generated images, and robustness of networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cgankd.config.settings import NoSubsampling
from cgankd.core.store import Artifact
from cgankd.data.file_names import FileNames
from cgankd.metrics.generator_quality import RealImages
from cgankd.metrics.robustness import Attack
from cgankd.nets.build import NetworkSource, StoredNetwork
from cgankd.pipeline import stages
from cgankd.pipeline.comparisons import row
from cgankd.synthesis import checks
from cgankd.synthesis.store import StoredFakes

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run


def quality(run: Run, seed: int) -> Artifact:
    """The quality of the generated images, whether they are copies, and the terms of the error bound."""
    settings, splits = run.recipe.metrics.generator, run.splits
    assert settings is not None
    features: dict[str, NetworkSource] = {}
    if run.black_box is None:
        features["teacher"] = run.teachers(seed, jury=False)[0]
    if "nokd" in settings.features:
        features["nokd"] = StoredNetwork(run.nokd(seed))
    unused = None if run.recipe.search else splits.val  # validation images by which nothing was chosen
    if unused is not None and not isinstance(run.recipe.synthesis.subsampling, NoSubsampling):
        unused = unused.take(checks.halves(len(unused), seed)[1])
    return run.store.call(
        stages.measure_generator,
        real=RealImages(splits.train, splits.pool, splits.val, unused, splits.task),
        generator=run.sampler(seed),
        fakes=StoredFakes(run.synthesis(seed, row("cgan")), run.replace),
        real_share=run.recipe.student.real_share,
        features=features,
        black_box=run.black_box,
        settings=settings,
        seed=seed,
    )


def attacked(run: Run, network: StoredNetwork, attack: Attack) -> Artifact:
    """The score of a teacher or student on test images under one attack."""
    return run.store.titled(f"{attack.name} on {network.artifact.summary.get('network', 'a network')}").call(
        stages.attack_network,
        network=network,
        test=run.splits.test,
        task=run.task,
        attack=attack,
        seed=run.recipe.data.seed,  # which also chooses the images of the splits
    )


def worst_answers(run: Run, networks: Mapping[str, StoredNetwork]) -> Artifact:
    """The answers of networks, each under its name in the report, to the test images, and the worst of them."""
    return run.store.titled("worst test images").call(
        stages.find_worst_answers,
        networks=dict(networks),
        test=run.splits.test,
        files=FileNames(run.splits.test.files),
        task=run.task,
    )
