"""Stages that measure the quality of generated images and the robustness of networks."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from cgankd.config.settings import GeneratorMetricsSettings
from cgankd.core.runtime import Fabric
from cgankd.core.store import Work, stage
from cgankd.data.file_names import FileNames
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import GeneratorSource
from cgankd.metrics import robustness
from cgankd.metrics.generator_quality import Processed, RealImages, measure_quality
from cgankd.metrics.worst import all_answers, worst_answers
from cgankd.nets.build import NetworkSource, StoredNetwork
from cgankd.nets.inference import outputs
from cgankd.synthesis.store import StoredFakes
from cgankd.tasks import Task
from cgankd.teachers.black_box import BlackBox

WORST = 10  # images of each network


# version 1 measured the diversity of a window by its lowest labels; 2 ready images of other labels; 3 and 4 by rounded
# distances
@stage(version=5)
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
    """The quality of the generated images, whether they are copies, and the terms of the error bound.

    features: the networks whose penultimate layers are the feature spaces. black_box: a teacher without features.
    """
    generated, relabelled = dataclasses.replace(fakes, replace="none").open(), fakes.open()
    summary, pairs = measure_quality(
        work,
        real,
        generator.open(work.fabric),
        Processed(generated, relabelled.labels, fakes.replace != "none", real_share),
        {name: _module(source, work.fabric) for name, source in features.items()},
        settings,
        seed=seed,
        teacher=black_box,
    )
    work.save("pairs", pairs)
    return summary


@stage(version=2)  # version 1 also raised the length of the outputs for a label that wraps
def attack_network(
    work: Work, *, network: StoredNetwork, test: ImageSet, task: Task, attack: robustness.Attack, seed: int
) -> dict[str, Any]:
    """The score of a network on test images under one attack."""
    return robustness.measure(work, network.open(work.fabric), test, task, attack, seed=seed)


@stage(version=3)  # version 2 did not know the names of files
def find_worst_answers(
    work: Work, *, networks: dict[str, StoredNetwork], test: ImageSet, files: FileNames, task: Task
) -> dict[str, Any]:
    """Each network's answers to the test images, and the ten images on which it is most wrong, for the report.

    One pass over the test split; nothing is chosen by it. files: of the test images; those shown are in the summary.
    """
    given = {name: outputs(work, network.open(work.fabric), test.images, name) for name, network in networks.items()}
    work.save("answers", all_answers(given, test, task))
    worst = worst_answers(given, test, task, WORST)
    work.save("worst", worst)
    return {"networks": list(networks), "files": [files.names[row] for row in worst["rows"].tolist() if files.names]}


def _module(source: NetworkSource, fabric: Fabric) -> nn.Module:
    network = source.open(fabric)
    assert isinstance(network, nn.Module)
    return network
