"""The GAN; M1 and M2: burn-in, calibration of the filter, and synthesis, each with its own artifact."""

from __future__ import annotations

import dataclasses

from cgankd.config.settings import GeneratorSettings, NoSubsampling, Subsampling, SynthesisSettings
from cgankd.core.errors import TrainingError, first_of
from cgankd.core.store import Artifact, Store
from cgankd.data.imageset import ImageSet
from cgankd.labels import LabelPlan
from cgankd.nets.build import NetworkSource
from cgankd.pipeline import stages
from cgankd.pipeline.inputs import Extractor, ProposalSource
from cgankd.synthesis.rejection import Rule
from cgankd.tasks import Task


def train_gan(
    store: Store, settings: GeneratorSettings, train: ImageSet, task: Task, teacher: NetworkSource | None, seed: int
) -> Artifact:
    """The conditional GAN, trained on ``train``. teacher: needed for ``settings.guidance`` alone."""
    return store.call(
        stages.train_generator,
        train=train,
        size=settings.drawn(train.size),
        task=task,
        gan=settings.gan,
        scalar=settings.scalar if task.continuous else None,
        teacher=teacher if settings.guidance else None,
        seed=seed,
    )


def process(
    store: Store,
    source: ProposalSource,
    plan: LabelPlan,
    settings: SynthesisSettings,
    subsampling: Subsampling,
    *,
    features: Extractor,
    keep_probabilities: bool,
) -> Artifact:
    """The images of ``plan`` that are accepted and not filtered out.

    subsampling: replaces that of the settings. features: for the steps that need no teacher outputs. Burn-in and
    calibration depend on the labels of the plan, and not on the number of images (calibration: where all labels are
    asked for equally often), so that another M, another rho or an ablation uses them again. Raises TrainingError where
    every ratio of a label's burn-in is 0, unless ``subsampling.fall_back`` allows to accept all images there.
    """
    rule, burn_in = None, None
    if not isinstance(subsampling, NoSubsampling):
        rule = Rule.of(subsampling)
        burn_in = store.titled(f"{store.title}: burn-in").call(
            stages.burn_in,
            source=dataclasses.replace(source, extractor=features),
            plan=plan.with_total_per(plan.pool, subsampling.burn_in).without_groups(),
        )
        if (dead := burn_in.summary.get("dead")) and not subsampling.fall_back:
            raise TrainingError(
                f"density ratio: the ratio of every burn-in fake of {first_of(dead, 5)} is 0, so nothing can be "
                "accepted there; raise ratio.steps, or set synthesis.subsampling.fall_back=true, which accepts all "
                "images of such labels"
            )
    calibration, rho = None, None
    if settings.filter is not None:
        rho = settings.filter.rho or source.task.filter_quantile
        calibration = store.titled(f"{store.title}: calibration").call(
            stages.calibrate_filter,
            source=source,
            plan=plan.for_calibration(settings.filter.calibration),
            burn_in=burn_in,
            rule=rule,
        )
    return store.titled(store.title if settings.filter else f"{store.title} (ablation)").call(
        stages.make_images,
        source=source,
        plan=plan,
        burn_in=burn_in,
        rule=rule,
        calibration=calibration,
        rho=rho,
        keep_probabilities=keep_probabilities,
    )
