"""Stages for generated images: burn-in, calibration of the filter, synthesis; and pseudo-labels of real images.

Of several processes, only the first enters ``source.open``; until it leaves, the others draw proposals for it there.
"""

from __future__ import annotations

from typing import Any

from cgankd.core.store import Artifact, Work, stage
from cgankd.data.imageset import UnlabelledImages
from cgankd.labels import LabelPlan
from cgankd.nets import inference
from cgankd.nets.build import NetworkSource
from cgankd.pipeline.inputs import ProposalSource
from cgankd.synthesis.rejection import Rule
from cgankd.synthesis.store import keep_fakes
from cgankd.synthesis.synthesize import BurnIn, FilterRule, draw_burn_in, draw_errors, synthesize
from cgankd.tasks import Task


@stage(together=True)
def burn_in(work: Work, *, source: ProposalSource, plan: LabelPlan) -> dict[str, Any]:
    """The density ratios of fakes, which set the first M of each label pool. ``dead``: labels whose are all 0."""
    with source.open(work.fabric) as proposals:
        ratios = draw_burn_in(work, proposals, plan)
    work.save("ratios", {"ratio": ratios.ratio, "label": ratios.label})
    return {"fakes": len(ratios.ratio), "dead": ratios.dead_labels(plan, source.task)}


def read_burn_in(artifact: Artifact | None) -> BurnIn | None:
    """The result of :func:`burn_in`."""
    return None if artifact is None else BurnIn(**artifact.tensors("ratios"))


@stage(together=True)
def calibrate_filter(
    work: Work,
    *,
    source: ProposalSource,
    plan: LabelPlan,
    burn_in: Artifact | None,
    rule: Rule | None,
) -> dict[str, Any]:
    """The errors of subsampled fakes, whose quantiles are the thresholds of the filter."""
    ratios = read_burn_in(burn_in)
    acceptance = None if ratios is None or rule is None else ratios.acceptance(plan, rule)
    with source.open(work.fabric) as proposals:
        errors, group = draw_errors(work, proposals, plan, acceptance)
    work.save("errors", {"error": errors, "group": group})
    return {"fakes": len(errors)}


@stage(version=2, together=True)
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
    """Generated images that are accepted and not filtered out, with the teachers' predictions."""
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
    """The teacher's labels for unlabelled real images."""
    outputs = inference.outputs(work, teacher.open(work.fabric), images.images)
    work.save("labels", {"labels": task.predict(outputs)})
    return {"images": len(outputs)}
