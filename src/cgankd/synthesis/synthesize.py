"""The streaming loop of M1 and M2: propose, weigh, accept, filter, store.

Proposal j of label i is a pure function of (seed, label, j): its latent, its accept draw, its verdict. The images
kept for a label are its first ``quota`` proposals that pass, so the result does not depend on the batch size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd import counter
from cgankd.data.imageset import ImageSet
from cgankd.features import Observer
from cgankd.gan.generator import Sampler
from cgankd.labels import LabelPlan
from cgankd.progress import SILENT, Progress
from cgankd.recipe import SynthesisSettings
from cgankd.synthesis import adjust, rejection
from cgankd.synthesis.density_ratio import RatioNetwork
from cgankd.synthesis.store import ImageStore
from cgankd.task import Task

EXAMPLES = 60  # kept, dropped and rejected images that are put aside for the report, each


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """Processed fakes and what happened on the way."""

    fakes: ImageSet  # labels in the user's unit; columns prediction, error, ratio
    summary: dict[str, Any]
    samples: dict[str, Tensor]  # examples for the report


@dataclasses.dataclass
class _Block:
    """Proposals [l, n] of l labels: what was generated and what was found out about it."""

    label: Tensor  # int64 [l], rows of the plan
    index: Tensor  # int64 [l, n]
    images: Tensor  # uint8 [l * n, C, H, W]
    outputs: Tensor  # [l * n, number of outputs]
    error: Tensor  # [l, n]
    ratio: Tensor  # [l, n]; all 1 without a ratio network
    accepted: Tensor  # bool [l, n], by the density ratio
    kept: Tensor  # bool [l, n], accepted, not filtered out, and within the quota
    considered: Tensor  # bool [l, n]; a label's proposals after its quota was full don't count


class _Proposals:
    """Everything that is the same for burn-in, calibration and the real thing."""

    def __init__(
        self,
        generator: Sampler,
        observer: Observer,
        ratio: RatioNetwork | None,
        task: Task,
        settings: SynthesisSettings,
        seed: int,
    ) -> None:
        self.generator, self.observer, self.ratio = generator, observer, ratio
        self.task, self.settings, self.seed = task, settings, seed

    def look(self, plan: LabelPlan, label: Tensor, first: Tensor, count: int, stream: str) -> _Block:
        """Generate proposals ``first .. first + count - 1`` of each label and weigh them; all pass so far."""
        index = first[:, None] + torch.arange(count)
        targets = plan.targets[label].repeat_interleave(count)
        images = self.generator.sample(targets, index.flatten(), counter.key(self.seed, stream))
        outputs, features = self.observer(images)
        error = self.task.error(outputs, targets.to(outputs.device)).cpu().view(index.shape)
        ratio = torch.ones(index.shape)
        if self.ratio is not None:
            with torch.no_grad():
                ratio = self.ratio(features, targets.to(features.device)).float().cpu().view(index.shape)
        everything = torch.ones(index.shape, dtype=torch.bool)
        return _Block(label, index, images, outputs.cpu(), error, ratio, everything, everything, everything)

    def judged(self, plan: LabelPlan, maxima: Tensor | None, stream: str, alpha: Tensor | None) -> Iterator[_Block]:
        """Blocks of judged proposals, until every label's quota or its bound on draws is reached."""
        kept = torch.zeros_like(plan.quota)
        drawn = torch.zeros_like(plan.quota)
        bound = plan.quota * self.settings.max_draws
        maxima = None if maxima is None else maxima.clone()
        while bool((open_ := (kept < plan.quota) & (drawn < bound)).any()):
            label = open_.nonzero().squeeze(1)[: self.settings.batch_size]
            rate = (kept[label].sum() / drawn[label].sum().clamp(min=1)).clamp(min=0.05)
            rate = rate if int(drawn[label].sum()) else torch.tensor(1.0)
            wanted = ((plan.quota - kept)[label].max() / rate).ceil()
            count = int(wanted.clamp(1, max(1, self.settings.batch_size // len(label))))
            count = min(count, int((bound - drawn)[label].min()))
            block = self.look(plan, label, drawn[label], count, stream)
            if maxima is not None:
                draws = counter.uniform(
                    self.seed, stream + "/accept", _counters(plan.targets[label])[:, None], block.index
                )
                rising = self.settings.subsampling == "maximum"
                block.accepted, maxima[label] = rejection.accept(block.ratio, maxima[label], draws, rising)
            passed = block.accepted
            if alpha is not None:
                passed = passed & adjust.keep(block.error, alpha[plan.group[label]][:, None])
            room = (plan.quota - kept)[label][:, None]
            before = passed.cumsum(dim=1) - passed.long()
            block.considered = before < room
            block.accepted = block.accepted & block.considered
            block.kept = passed & block.considered
            kept[label] += block.kept.sum(dim=1)
            drawn[label] += count
            yield block


def synthesize(
    generator: Sampler,
    observer: Observer,
    ratio: RatioNetwork | None,
    plan: LabelPlan,
    task: Task,
    settings: SynthesisSettings,
    *,
    seed: int,
    folder: Path | None = None,
    progress: Progress = SILENT,
    title: str = "synthesis",
) -> Synthesis:
    """Generate until every label of ``plan`` has its quota, or ``settings.max_draws`` draws per image wanted.

    ratio None means no subsampling. With a folder, images go to ``images.u8`` there; else they stay in memory.
    Labels that fell short are in the summary.
    """
    proposals = _Proposals(generator, observer, ratio, task, settings, seed)
    maxima, share = (None, None) if ratio is None else _burn_in(proposals, plan, progress)
    samples: dict[str, Tensor] = {}
    alpha = None
    rho = task.filter_quantile if settings.filter_quantile is None else settings.filter_quantile
    if settings.filter:
        errors, group = _calibrate(proposals, plan, maxima, progress)
        alpha = adjust.thresholds(errors, group, int(plan.group.max()) + 1, rho)
        samples |= {"calibration_errors": errors, "calibration_group": group}

    shape = tuple(generator.sample(plan.targets[:1], torch.zeros(1, dtype=torch.int64), seed).shape[1:])
    slots = int(plan.quota.sum())
    store = ImageStore(folder / "images.u8" if folder else None, slots, shape)  # type: ignore[arg-type]
    offset = plan.quota.cumsum(0) - plan.quota
    tally = _Tally(plan, task)
    prediction = torch.zeros(slots)
    error, weight = torch.zeros(slots), torch.zeros(slots)
    examples = _Examples(task)
    with progress.bar(title, slots) as bar:
        for block in proposals.judged(plan, maxima, "proposal", alpha):
            place = (offset + tally.kept)[block.label][:, None] + block.kept.cumsum(dim=1) - 1
            slot, flat = place[block.kept], block.kept.flatten()
            store.put(slot, block.images[flat])
            prediction[slot] = task.predict(block.outputs[flat]).float()
            error[slot], weight[slot] = block.error[block.kept], block.ratio[block.kept]
            tally.add(block)
            examples.add(block, plan)
            bar.to(int(tally.kept.sum()), f"{tally.kept.sum() / tally.generated.sum():.0%} kept")
    filled = torch.arange(slots) - offset.repeat_interleave(plan.quota) < tally.kept.repeat_interleave(plan.quota)
    labels = task.from_target(plan.targets.repeat_interleave(plan.quota))
    fakes = ImageSet(
        store.close(filled),
        labels[filled],
        {"prediction": prediction[filled], "error": error[filled], "ratio": weight[filled]},
    )
    summary = tally.summary(alpha, rho if settings.filter else None, share)
    return Synthesis(fakes, summary, samples | examples.tensors())


def _burn_in(proposals: _Proposals, plan: LabelPlan, progress: Progress) -> tuple[Tensor, float]:
    """The first maximum ratio of each label, over fakes pooled from near labels, and the effective share."""
    settings = proposals.settings
    burn = plan.with_total_per(plan.pool, settings.burn_in)
    ratios, pools = [], []
    with progress.bar("burn-in", int(burn.quota.sum())) as bar:
        for block in proposals.judged(burn, None, "burn-in", None):
            ratios.append(block.ratio[block.kept])
            pools.append(plan.pool[block.label][:, None].expand_as(block.kept)[block.kept])
            bar.to(sum(map(len, ratios)))
    ratio, pool = torch.cat(ratios), torch.cat(pools)
    quantile = settings.cap_quantile if settings.subsampling == "quantile" else 1.0
    maxima = rejection.first_maxima(ratio, pool, int(plan.pool.max()) + 1, quantile)
    # The rule h / M does not see a label's own scale of h; neither must the effective share.
    mean = torch.zeros(len(maxima)).index_add_(0, pool, ratio) / torch.bincount(pool)
    return maxima[plan.pool], rejection.effective_sample_share(ratio / mean[pool])


def _calibrate(
    proposals: _Proposals, plan: LabelPlan, maxima: Tensor | None, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Errors of subsampled fakes and their filter group, for the quantile; drawn apart from what is kept."""
    wanted = plan.with_total_per(plan.group, proposals.settings.calibration)
    errors, groups = [], []
    with progress.bar("filter quantile", int(wanted.quota.sum())) as bar:
        for block in proposals.judged(wanted, maxima, "calibration", None):
            errors.append(block.error[block.kept])
            groups.append(plan.group[block.label][:, None].expand_as(block.kept)[block.kept])
            bar.to(sum(map(len, errors)))
    return torch.cat(errors), torch.cat(groups)


def _counters(targets: Tensor) -> Tensor:
    return targets.float().view(torch.int32) if targets.is_floating_point() else targets


class _Tally:
    """Counts per label while images stream by."""

    def __init__(self, plan: LabelPlan, task: Task) -> None:
        self.plan, self.task = plan, task
        self.generated, self.accepted, self.kept = (torch.zeros_like(plan.quota) for _ in range(3))
        self.score = dict.fromkeys(("generated", "accepted", "kept"), 0.0)

    def add(self, block: _Block) -> None:
        masks = {"generated": block.considered, "accepted": block.accepted, "kept": block.kept}
        self.generated[block.label] += block.considered.sum(dim=1)
        self.accepted[block.label] += block.accepted.sum(dim=1)
        self.kept[block.label] += block.kept.sum(dim=1)
        labels = self.task.from_target(self.plan.targets[block.label]).repeat_interleave(block.index.shape[1])
        score = self.task.score(block.outputs, labels)
        for name, mask in masks.items():
            self.score[name] += float(score[mask.flatten()].sum())

    def summary(self, alpha: Tensor | None, rho: float | None, effective_share: float | None) -> dict[str, Any]:
        names, place = self.task.bins(self.task.from_target(self.plan.targets))
        counts = {"requested": self.plan.quota, "generated": self.generated, "accepted": self.accepted,
                  "kept": self.kept}  # fmt: skip
        per_bin = {
            name: torch.zeros(len(names), dtype=torch.int64).index_add_(0, place, count).tolist()
            for name, count in counts.items()
        }
        total = {name: int(count.sum()) for name, count in counts.items()}
        return {
            **total,
            "acceptance": total["accepted"] / max(total["generated"], 1),
            "filter_quantile": rho,
            "thresholds": None if alpha is None else [float(a) if a < torch.inf else None for a in alpha],
            "effective_sample_share": effective_share,
            "teacher_metric": {name: s / max(total[name], 1) for name, s in self.score.items()},
            "per_label": [
                {"label": label, **{name: count[number] for name, count in per_bin.items()}}
                for number, label in enumerate(names)
            ],
        }


class _Examples:
    """A few images of each fate, the first of each label that come by."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rows: dict[str, list[tuple[Tensor, ...]]] = {"kept": [], "dropped": [], "rejected": []}
        self.taken: dict[str, int] = dict.fromkeys(self.rows, 0)

    def add(self, block: _Block, plan: LabelPlan) -> None:
        fates = {
            "kept": block.kept,
            "dropped": block.accepted & ~block.kept,
            "rejected": block.considered & ~block.accepted,
        }
        per_label = max(1, EXAMPLES // len(plan.targets))
        for name, mask in fates.items():
            room = EXAMPLES - self.taken[name]
            chosen = (mask & (mask.cumsum(dim=1) <= per_label)).flatten().nonzero().squeeze(1)
            chosen = chosen[:: max(1, len(chosen) // max(room, 1))][:room]
            if len(chosen):
                labels = self.task.from_target(plan.targets[block.label]).repeat_interleave(mask.shape[1])
                self.rows[name].append(
                    (
                        block.images[chosen],
                        labels[chosen],
                        self.task.predict(block.outputs[chosen]),
                        block.error.flatten()[chosen],
                        block.ratio.flatten()[chosen],
                    )
                )
                self.taken[name] += len(chosen)

    def tensors(self) -> dict[str, Tensor]:
        columns = ("images", "labels", "predictions", "errors", "ratios")
        return {
            f"{fate}_{column}": torch.cat([row[number] for row in rows])
            for fate, rows in self.rows.items()
            if rows
            for number, column in enumerate(columns)
        }
