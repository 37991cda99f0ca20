"""The streaming loop of M1 and M2: propose, weigh, accept, filter, store.

The images kept for a label are its first ``quota`` proposals that pass, so the result does not depend on the batch
size, and those of a smaller M are the first of a larger one's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd.core.progress import Bar, Progress
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.labels import LabelPlan
from cgankd.synthesis import adjust, rejection
from cgankd.synthesis.proposals import Block, Proposals
from cgankd.synthesis.rejection import Acceptance, Rule
from cgankd.synthesis.store import IMAGES, ImageStore
from cgankd.synthesis.tally import Examples, Tally


@dataclasses.dataclass(frozen=True)
class BurnIn:
    """The ratios of fakes that set M, float32 [B], and their labels, int64 [B], rows of the plan."""

    ratio: Tensor
    label: Tensor

    def acceptance(self, plan: LabelPlan, rule: Rule) -> Acceptance:
        """M of each label, by the fakes of near labels together."""
        pools = int(plan.pool.max()) + 1
        maxima = rejection.first_maxima(self.ratio, plan.pool[self.label], pools, rule)
        return Acceptance(maxima[plan.pool], rule.rising)

    def weights(self, plan: LabelPlan) -> Tensor:
        """The ratios over the mean of their pool, because the rule h / M does not see a label's own scale of h."""
        pool, pools = plan.pool[self.label], int(plan.pool.max()) + 1
        mean = torch.zeros(pools).index_add_(0, pool, self.ratio) / torch.bincount(pool, minlength=pools)
        return self.ratio / mean[pool]


def draw_burn_in(proposals: Proposals, plan: LabelPlan, progress: Progress) -> BurnIn:
    """The ratios of ``plan.quota`` fakes of each label."""
    ratios, labels = [], []
    with progress.bar("burn-in", int(plan.quota.sum())) as bar:
        for block in proposals.draw(plan, "burn-in"):
            ratios.append(block.ratio[block.kept])
            labels.append(block.label[:, None].expand_as(block.kept)[block.kept])
            bar.to(sum(map(len, ratios)))
    return BurnIn(torch.cat(ratios), torch.cat(labels))


def draw_errors(
    proposals: Proposals, plan: LabelPlan, acceptance: Acceptance | None, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Errors of subsampled fakes, float32 [N], and the filter group of each, int64 [N].

    The quantile of the filter is taken over these, which are drawn apart from the images that are kept.
    """
    errors, groups = [], []
    with progress.bar("filter quantile", int(plan.quota.sum())) as bar:
        for block in proposals.draw(plan, "calibration", acceptance):
            errors.append(block.error[block.kept])
            groups.append(plan.group[block.label][:, None].expand_as(block.kept)[block.kept])
            bar.to(sum(map(len, errors)))
    return torch.cat(errors), torch.cat(groups)


@dataclasses.dataclass(frozen=True)
class FilterRule:
    """errors, group: what :func:`draw_errors` gave. rho: the quantile below which a fake is kept."""

    errors: Tensor
    group: Tensor
    rho: float

    def thresholds(self, plan: LabelPlan) -> Tensor:
        """Of each filter group of the plan, float32 [groups]."""
        return adjust.thresholds(self.errors, self.group, int(plan.group.max()) + 1, self.rho)


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """Processed fakes and what happened on the way."""

    fakes: ImageSet  # labels in the user's unit; columns prediction, error, ratio, and probabilities where wanted
    summary: dict[str, Any]
    samples: dict[str, Tensor]  # examples for the report


def synthesize(
    work: Work,
    proposals: Proposals,
    plan: LabelPlan,
    *,
    rule: Rule | None = None,
    burn_in: BurnIn | None = None,
    filter_rule: FilterRule | None = None,
    keep_probabilities: bool = False,
) -> Synthesis:
    """Generate until every label of ``plan`` has its quota, or its bound on draws is reached.

    rule, burn_in: how proposals are accepted; without them all are. filter_rule: None: no filter.
    keep_probabilities: also keep the teachers' probabilities of each image. Where ``work`` has a folder, images go to
    ``images.u8`` there; else they stay in memory. Labels that fell short are in the summary.
    """
    task, acceptance = proposals.task, None
    if burn_in is not None:
        assert rule is not None
        acceptance = burn_in.acceptance(plan, rule)
    thresholds = None if filter_rule is None else filter_rule.thresholds(plan)
    path = None if work.folder is None else work.folder / IMAGES
    kept = _Kept(path, plan, proposals, keep_probabilities)
    examples = Examples(task)
    with work.progress.bar(work.title or "synthesis", int(plan.quota.sum())) as bar:
        for block in proposals.draw(plan, "proposal", acceptance, thresholds):
            kept.add(block)
            examples.add(block, plan)
            _show(bar, kept.tally)
    weights, at = (None, None) if burn_in is None else (burn_in.weights(plan), burn_in.label)
    summary = {
        **kept.tally.summary(weights, at),
        "subsampling": "none" if rule is None else rule.kind,
        "filter_quantile": None if filter_rule is None else filter_rule.rho,
        "thresholds": None if thresholds is None else [float(a) if a < torch.inf else None for a in thresholds],
        "teachers": 1 + len(proposals.extractor.others),
    }
    samples = examples.tensors()
    if filter_rule is not None:
        samples |= {"calibration_errors": filter_rule.errors, "calibration_group": filter_rule.group}
    return Synthesis(kept.close(), summary, samples)


def _show(bar: Bar, tally: Tally) -> None:
    bar.to(int(tally.kept.sum()), f"{tally.kept.sum() / tally.generated.sum():.0%} kept")


class _Kept:
    """The images that are kept, each in its slot: those of a label side by side, in the order of their index."""

    def __init__(self, path: Path | None, plan: LabelPlan, proposals: Proposals, probabilities: bool) -> None:
        self.plan, self.task = plan, proposals.task
        slots = int(plan.quota.sum())
        self.images = ImageStore(path, slots, _shape(proposals, plan))
        self.columns = {name: torch.zeros(slots) for name in ("error", "ratio")}
        self.columns["prediction"] = torch.zeros(slots, dtype=self.task.label_dtype)
        if probabilities:
            self.columns["probabilities"] = torch.zeros(slots, self.task.num_outputs)
        self.offset = plan.quota.cumsum(0) - plan.quota
        self.tally = Tally(plan, self.task)

    def add(self, block: Block) -> None:
        place = (self.offset + self.tally.kept)[block.label][:, None] + block.kept.cumsum(dim=1) - 1
        slot, flat = place[block.kept], block.kept.flatten()
        self.images.put(slot, block.images[flat])
        self.columns["prediction"][slot] = self.task.predict(block.outputs[flat])
        self.columns["error"][slot], self.columns["ratio"][slot] = block.error[block.kept], block.ratio[block.kept]
        if "probabilities" in self.columns:
            self.columns["probabilities"][slot] = block.outputs[flat].softmax(dim=1)
        self.tally.add(block)

    def close(self) -> ImageSet:
        plan, slots = self.plan, int(self.plan.quota.sum())
        first = self.offset.repeat_interleave(plan.quota)
        filled = torch.arange(slots) - first < self.tally.kept.repeat_interleave(plan.quota)
        labels = self.task.from_target(plan.targets.repeat_interleave(plan.quota))
        columns = {name: column[filled] for name, column in self.columns.items()}
        return ImageSet(self.images.close(filled), labels[filled], columns)


def _shape(proposals: Proposals, plan: LabelPlan) -> tuple[int, int, int]:
    """C, H, W of the generator's images, from one of them."""
    first = int((proposals.held(plan) > 0).long().argmax())
    targets, index = plan.targets[first : first + 1], torch.zeros(1, dtype=torch.int64)
    channels, height, width = proposals.generator.sample(targets, index, proposals.seed).shape[1:]
    return channels, height, width
