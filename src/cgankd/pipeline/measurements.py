"""What of a run is measured beside its students' scores: the generated images, and networks under attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgankd.config.settings import NoSubsampling
from cgankd.core.store import Artifact
from cgankd.metrics.generator_quality import RealImages
from cgankd.metrics.robustness import Attack
from cgankd.nets.build import NetworkSource, StoredNetwork
from cgankd.pipeline import stages
from cgankd.pipeline.comparisons import row
from cgankd.synthesis import checks
from cgankd.synthesis.store import StoredFakes

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run


def quality(road: Run, seed: int) -> Artifact:
    """How good the generated images are, whether they are copies, and the error bound's terms."""
    settings, splits = road.recipe.metrics.generator, road.splits
    assert settings is not None
    features: dict[str, NetworkSource] = {}
    if road.black_box is None:
        features["teacher"] = road.teachers(seed, jury=False)[0]
    if "nokd" in settings.features:
        features["nokd"] = StoredNetwork(road.nokd(seed))
    unused = None if road.recipe.search else splits.val  # validation images that chose nothing
    if unused is not None and not isinstance(road.recipe.synthesis.subsampling, NoSubsampling):
        unused = unused.take(checks.halves(len(unused), seed)[1])
    return road.store.call(
        stages.measure_generator,
        real=RealImages(splits.train, splits.pool, splits.val, unused, splits.task),
        generator=road.sampler(seed),
        fakes=StoredFakes(road.synthesis(seed, row("cgan")), road.replace),
        real_share=road.recipe.student.real_share,
        features=features,
        black_box=road.black_box,
        settings=settings,
        seed=seed,
    )


def attacked(road: Run, network: Artifact, attack: Attack) -> Artifact:
    """What is left of a teacher's or student's score where test images are changed to mislead it."""
    return road.store.titled(f"{attack.name} on {network.summary['network']}").call(
        stages.attack_network,
        network=StoredNetwork(network),
        test=road.splits.test,
        task=road.task,
        attack=attack,
        seed=road.recipe.data.seed,  # it chooses images there too
    )
