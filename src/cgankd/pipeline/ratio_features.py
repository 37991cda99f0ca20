"""The features that the density ratio reads: which network gives them, and its training where it needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgankd.config.settings import AutoencoderFeatures, ClassifierFeatures, NOKDFeatures, NoSubsampling
from cgankd.core import rng
from cgankd.data.imageset import TrainingImages
from cgankd.nets.build import Architecture, NetworkSource, StoredNetwork
from cgankd.pipeline import stages
from cgankd.synthesis.autoencoder import StoredAutoencoder

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run


def ratio_features(run: Run, seed: int, *, stand_in: bool = False) -> NetworkSource | None:
    """The network whose penultimate layer gives the features; None: the teacher, also where no ratio reads them.

    stand_in: whether a network is needed in place of the teacher, because there is none to be trained or asked.
    """
    features, fit = run.recipe.ratio.features, run.recipe.student.fit
    if isinstance(run.recipe.synthesis.subsampling, NoSubsampling) and run.black_box is None and not stand_in:
        return None  # a teacher that gives no features needs a stand-in nevertheless
    store = run.store.titled("features of the ratio")
    if isinstance(features, NOKDFeatures):
        return StoredNetwork(run.nokd(seed))
    if isinstance(features, ClassifierFeatures):
        artifact = store.call(
            stages.train_network,
            network=Architecture(features.network),
            start=None,
            images=TrainingImages(run.splits.train),
            fit=fit.model_copy(update={"steps": features.steps}),
            val=run.splits.val,
            task=run.task,
            seed=rng.key(seed, "ratio/features"),  # so that it differs from a teacher with the same network
        )
        return StoredNetwork(artifact)
    if isinstance(features, AutoencoderFeatures):
        artifact = store.call(
            stages.train_encoder,
            network=Architecture(features.network),
            steps=features.steps,
            batch_size=fit.batch_size,
            augment=fit.augment,
            train=run.splits.train,
            task=run.task,
            seed=seed,
        )
        return StoredAutoencoder(artifact)
    return None
