"""The streaming loop of M1 and M2: propose, weigh, accept, filter, store.

The images kept for a label are its first ``quota`` proposals that pass, so the result does not depend on the batch
size.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd.config.settings import SynthesisSettings
from cgankd.core.errors import UserError
from cgankd.core.progress import SILENT, Progress
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import Sampler
from cgankd.labels import LabelPlan
from cgankd.nets.feature_extractor import Observer
from cgankd.synthesis import adjust, rejection
from cgankd.synthesis.density_ratio import RatioNetwork
from cgankd.synthesis.proposals import Proposals
from cgankd.synthesis.store import ImageStore
from cgankd.synthesis.tally import Examples, Tally
from cgankd.tasks import Task


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """Processed fakes and what happened on the way."""

    fakes: ImageSet  # labels in the user's unit; columns prediction, error, ratio, and probabilities where wanted
    summary: dict[str, Any]
    samples: dict[str, Tensor]  # examples for the report


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
    The teachers' probabilities are kept where ``settings.replace`` is soft. Labels that fell short are in the
    summary.
    """
    proposals = Proposals(generator, observer, ratio, task, settings, seed)
    shape = _shape(generator, plan, seed)
    burn = _BurnIn() if ratio is None else _burn_in(proposals, plan, progress)
    samples: dict[str, Tensor] = {}
    alpha = None
    rho = task.filter_quantile if settings.filter_quantile is None else settings.filter_quantile
    if settings.filter:
        errors, group = _calibrate(proposals, plan, burn.maxima, progress)
        alpha = adjust.thresholds(errors, group, int(plan.group.max()) + 1, rho)
        samples |= {"calibration_errors": errors, "calibration_group": group}

    slots = int(plan.quota.sum())
    store = ImageStore(folder / "images.u8" if folder else None, slots, shape)
    columns = {name: torch.zeros(slots) for name in ("prediction", "error", "ratio")}
    if settings.replace == "soft":
        columns["probabilities"] = torch.zeros(slots, task.num_outputs)
    offset = plan.quota.cumsum(0) - plan.quota
    tally = Tally(plan, task)
    examples = Examples(task)
    with progress.bar(title, slots) as bar:
        for block in proposals.judged(plan, burn.maxima, "proposal", alpha):
            place = (offset + tally.kept)[block.label][:, None] + block.kept.cumsum(dim=1) - 1
            slot, flat = place[block.kept], block.kept.flatten()
            store.put(slot, block.images[flat])
            columns["prediction"][slot] = task.predict(block.outputs[flat]).float()
            columns["error"][slot], columns["ratio"][slot] = block.error[block.kept], block.ratio[block.kept]
            if "probabilities" in columns:
                columns["probabilities"][slot] = block.outputs[flat].softmax(dim=1)
            tally.add(block)
            examples.add(block, plan)
            bar.to(int(tally.kept.sum()), f"{tally.kept.sum() / tally.generated.sum():.0%} kept")
    filled = torch.arange(slots) - offset.repeat_interleave(plan.quota) < tally.kept.repeat_interleave(plan.quota)
    labels = task.from_target(plan.targets.repeat_interleave(plan.quota))
    fakes = ImageSet(
        store.close(filled), labels[filled], {name: column[filled] for name, column in columns.items()}
    )
    summary = {
        **tally.summary(burn.weights, burn.label),
        "subsampling": "none" if ratio is None else settings.subsampling,
        "filter_quantile": rho if settings.filter else None,
        "filter_by": settings.filter_by if settings.filter else None,
        "thresholds": None if alpha is None else [float(a) if a < torch.inf else None for a in alpha],
        "teachers": 1 + len(observer.others),
    }
    return Synthesis(fakes, summary, samples | examples.tensors())


@dataclasses.dataclass(frozen=True)
class _BurnIn:
    """What the burn-in found: M of each label, and its fakes' ratios over their pool's mean, with their labels."""

    maxima: Tensor | None = None  # float32 [L]
    weights: Tensor | None = None  # float32 [B]
    label: Tensor | None = None  # int64 [B], rows of the plan


def _burn_in(proposals: Proposals, plan: LabelPlan, progress: Progress) -> _BurnIn:
    """The first M of each label, over fakes pooled from near labels."""
    settings = proposals.settings
    burn = plan.with_total_per(plan.pool, settings.burn_in)
    ratios, labels = [], []
    with progress.bar("burn-in", int(burn.quota.sum())) as bar:
        for block in proposals.judged(burn, None, "burn-in", None):
            ratios.append(block.ratio[block.kept])
            labels.append(block.label[:, None].expand_as(block.kept)[block.kept])
            bar.to(sum(map(len, ratios)))
    ratio, label = torch.cat(ratios), torch.cat(labels)
    pool = plan.pool[label]
    maxima = rejection.first_maxima(ratio, pool, int(plan.pool.max()) + 1, settings)
    # The rule h / M does not see a label's own scale of h; neither must the effective share.
    mean = torch.zeros(len(maxima)).index_add_(0, pool, ratio) / torch.bincount(pool, minlength=len(maxima))
    return _BurnIn(maxima[plan.pool], ratio / mean[pool], label)


def _calibrate(
    proposals: Proposals, plan: LabelPlan, maxima: Tensor | None, progress: Progress
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


def _shape(generator: Sampler, plan: LabelPlan, seed: int) -> tuple[int, int, int]:
    """C, H, W of the generator's images, from one of them."""
    held = generator.available(plan.targets)
    first = int((held > 0).long().argmax())
    if not int(held[first]):
        raise UserError(
            "the generator holds no image at any of the labels that are asked for; allowed: at least one"
        )
    image = generator.sample(plan.targets[first : first + 1], torch.zeros(1, dtype=torch.int64), seed)
    channels, height, width = image.shape[1:]
    return channels, height, width
