"""The loop of M1 and M2: propose, weight by the density ratio, accept, filter, store.

A label keeps its first ``quota`` proposals that pass. So the result does not depend on the batch size, and a smaller
number of images gives the first images of a larger number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd.core.progress import Bar
from cgankd.core.row_file import RowFile, release_pages
from cgankd.core.store import CHECKPOINT, Work
from cgankd.data.imageset import ImageSet
from cgankd.labels import LabelPlan
from cgankd.synthesis import adjust, rejection
from cgankd.synthesis.proposals import Block, Drawn, Proposals
from cgankd.synthesis.rejection import Acceptance, Rule
from cgankd.synthesis.store import IMAGES
from cgankd.synthesis.tally import Examples, Tally
from cgankd.tasks import Task


@dataclasses.dataclass(frozen=True)
class BurnIn:
    """The ratios of fakes that set M, float32 [B], and their labels, int64 [B], rows of the plan."""

    ratio: Tensor
    label: Tensor

    def acceptance(self, plan: LabelPlan, rule: Rule) -> Acceptance:
        """M of each label, from the fakes of all labels in its pool."""
        pools = int(plan.pool.max()) + 1
        maxima = rejection.first_maxima(self.ratio, plan.pool[self.label], pools, rule)
        return Acceptance(maxima[plan.pool], rule.rising)

    def weights(self, plan: LabelPlan) -> Tensor:
        """The ratios divided by the mean of their pool, because h / M does not depend on a pool's scale of h.

        In a pool whose ratios are all 0, where all fakes are accepted, they are 1.
        """
        pool, pools = plan.pool[self.label], int(plan.pool.max()) + 1
        mean = torch.zeros(pools).index_add_(0, pool, self.ratio) / torch.bincount(pool, minlength=pools)
        return torch.where(mean[pool] > 0, self.ratio / mean[pool], 1.0)

    def dead_labels(self, plan: LabelPlan, task: Task) -> list[str]:
        """The classes or label bins with labels whose pool has no ratio above 0."""
        dead = torch.isin(plan.pool, rejection.dead_pools(self.ratio, plan.pool[self.label]))
        names, place = task.bins(task.from_target(plan.targets))
        return [names[number] for number in place[dead].unique().tolist()]


def draw_burn_in(work: Work, proposals: Proposals, plan: LabelPlan) -> BurnIn:
    """The ratios of ``plan.quota`` fakes of each label."""

    def columns(block: Block) -> dict[str, Tensor]:
        return {"ratio": block.ratio[block.kept], "label": block.label[:, None].expand_as(block.kept)[block.kept]}

    return BurnIn(**_drawn_columns(work, proposals, plan, "burn-in", None, columns))


def draw_errors(
    work: Work, proposals: Proposals, plan: LabelPlan, acceptance: Acceptance | None
) -> tuple[Tensor, Tensor]:
    """Errors of subsampled fakes, float32 [N], and the filter group of each, int64 [N].

    They set the thresholds of the filter. None of these fakes is among the images of :func:`synthesize`.
    """

    def columns(block: Block) -> dict[str, Tensor]:
        group = plan.group[block.label][:, None].expand_as(block.kept)
        return {"error": block.error[block.kept], "group": group[block.kept]}

    table = _drawn_columns(work, proposals, plan, "calibration", acceptance, columns)
    return table["error"], table["group"]


def _drawn_columns(
    work: Work,
    proposals: Proposals,
    plan: LabelPlan,
    stream: str,
    acceptance: Acceptance | None,
    columns: Callable[[Block], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Columns of the kept proposals of ``stream``; an interrupted call resumes from its checkpoint."""
    checkpoint = work.checkpoint()
    progress, parts = Drawn.nothing(plan, acceptance), list[dict[str, Tensor]]()
    blocks, _ = checkpoint.load()
    if blocks:
        progress = Drawn.restored(_ungrouped(checkpoint.tensors, "drawn"))
        parts = [_ungrouped(checkpoint.tensors, "column")]

    def joined() -> dict[str, Tensor]:
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    with work.progress.bar(work.title or stream, int(plan.quota.sum())) as bar:
        bar.images = 1
        for block in proposals.draw(plan, stream, acceptance, progress=progress):
            parts.append(columns(block))
            blocks += 1
            bar.to(int(progress.kept.sum()))
            if checkpoint.due():
                checkpoint.save(blocks, tensors=_grouped(drawn=progress.tensors(), column=joined()))
    return joined()


def _grouped(**groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Several mappings as one, for a checkpoint: GROUP/NAME -> tensor."""
    return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def _ungrouped(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    """One of the groups that :func:`_grouped` joined."""
    prefix = f"{group}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@dataclasses.dataclass(frozen=True)
class FilterRule:
    """errors, group: of :func:`draw_errors`. rho: the quantile below which a fake is kept."""

    errors: Tensor
    group: Tensor
    rho: float

    def thresholds(self, plan: LabelPlan) -> Tensor:
        """Of each filter group of the plan, float32 [groups]."""
        return adjust.thresholds(self.errors, self.group, int(plan.group.max()) + 1, self.rho)


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """The processed fakes."""

    fakes: ImageSet  # labels in the user's unit; columns prediction, error, ratio and, if requested, probabilities
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
    """Generate until every label of ``plan`` has reached its quota or its limit of draws.

    rule, burn_in: how proposals are accepted; without them all are. filter_rule: None: no filter.
    keep_probabilities: also store the teachers' probabilities for each image. Where ``work`` has a folder, images are
    written to ``images.u8`` there; else they stay in memory. The summary counts requested and kept images per label.
    """
    task, acceptance = proposals.task, None
    if burn_in is not None:
        assert rule is not None
        acceptance = burn_in.acceptance(plan, rule)
    thresholds = None if filter_rule is None else filter_rule.thresholds(plan)
    checkpoint = work.checkpoint()
    kept = _Kept(work.folder, plan, proposals, keep_probabilities, resume=checkpoint.there)
    examples, progress = Examples(task), Drawn.nothing(plan, acceptance)
    blocks = 0
    if kept.resumed:
        blocks, _ = checkpoint.load()
        progress = Drawn.restored(_ungrouped(checkpoint.tensors, "drawn"))
        examples.restore(_ungrouped(checkpoint.tensors, "example"))
        kept.tally.restore(_ungrouped(checkpoint.tensors, "tally"))
    with work.progress.bar(work.title or "synthesis", int(plan.quota.sum())) as bar:
        bar.images = 1
        for block in proposals.draw(plan, "proposal", acceptance, thresholds, progress):
            kept.add(block)
            examples.add(block, plan)
            blocks += 1
            _show(bar, kept.tally)
            if checkpoint.due():
                kept.flush()
                shown, counts = examples.tensors(), kept.tally.tensors()
                tensors = _grouped(drawn=progress.tensors(), example=shown, tally=counts)
                checkpoint.save(blocks, tensors=tensors)
    weights, at = (None, None) if burn_in is None else (burn_in.weights(plan), burn_in.label)
    summary = {
        **kept.tally.summary(weights, at),
        "subsampling": "none" if rule is None else rule.kind,
        "not_subsampled": [] if burn_in is None else burn_in.dead_labels(plan, task),
        "filter_quantile": None if filter_rule is None else filter_rule.rho,
        "thresholds": None if thresholds is None else [float(a) if a < torch.inf else None for a in thresholds],
        "teachers": 1 + len(proposals.extractor.others),
    }
    samples = examples.tensors()
    if filter_rule is not None:
        samples |= {"calibration_errors": filter_rule.errors, "calibration_group": filter_rule.group}
    return Synthesis(kept.close(), summary, samples)


def _show(bar: Bar, tally: Tally) -> None:
    kept, generated = (tally.counts[name].sum() for name in ("kept", "generated"))
    bar.to(int(kept), f"{kept / generated:.0%} of generated images kept")


class _Kept:
    """The kept images and their columns, sorted by label, then by index; in files where there is a folder."""

    def __init__(
        self, folder: Path | None, plan: LabelPlan, proposals: Proposals, probabilities: bool, resume: bool
    ) -> None:
        self.plan, self.task = plan, proposals.task
        slots = int(plan.quota.sum())

        def rows(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> RowFile:
            return RowFile(None if folder is None else folder / name, slots, shape, dtype, resume=resume)

        def column(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> RowFile:
            return rows(f"{CHECKPOINT}-{name}.rows", shape, dtype)  # the store removes it when the stage ends

        self.images = rows(IMAGES, _shape(proposals, plan), torch.uint8)
        self.columns = {name: column(name) for name in ("error", "ratio")}
        self.columns["prediction"] = column("prediction", dtype=self.task.label_dtype)
        if probabilities:
            self.columns["probabilities"] = column("probabilities", self.task.num_outputs)
        self.resumed = all(file.resumed for file in (self.images, *self.columns.values()))
        self.offset = plan.quota.cumsum(0) - plan.quota
        self.tally = Tally(plan, self.task)

    def add(self, block: Block) -> None:
        place = (self.offset + self.tally.counts["kept"])[block.label][:, None] + block.kept.cumsum(dim=1) - 1
        slot, flat = place[block.kept], block.kept.flatten()
        outputs = block.outputs[flat]
        values = {
            "prediction": self.task.predict(outputs),
            "error": block.error[block.kept],
            "ratio": block.ratio[block.kept],
        }
        if "probabilities" in self.columns:
            values["probabilities"] = outputs.softmax(dim=1)
        self.images.rows[slot] = block.images[flat].cpu()
        for name, value in values.items():
            self.columns[name].rows[slot] = value
        self.tally.add(block)
        release_pages()

    def flush(self) -> None:
        for file in (self.images, *self.columns.values()):
            file.flush()

    def close(self) -> ImageSet:
        plan, slots = self.plan, int(self.plan.quota.sum())
        first = self.offset.repeat_interleave(plan.quota)
        filled = torch.arange(slots) - first < self.tally.counts["kept"].repeat_interleave(plan.quota)
        labels = self.task.from_target(plan.targets.repeat_interleave(self.tally.counts["kept"]))
        columns = {name: file.close(filled) for name, file in self.columns.items()}
        return ImageSet(self.images.close(filled), labels, columns)


def _shape(proposals: Proposals, plan: LabelPlan) -> tuple[int, int, int]:
    """(C, H, W) of the generator's images, from a sample."""
    first = int((proposals.held(plan) > 0).long().argmax())
    targets, index = plan.targets[first : first + 1], torch.zeros(1, dtype=torch.int64)
    channels, height, width = proposals.generator.sample(targets, index, proposals.seed).shape[1:]
    return channels, height, width
