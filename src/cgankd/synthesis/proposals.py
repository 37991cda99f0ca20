"""Proposals: generated, looked at by the teachers, weighed by the density ratio, accepted or not, filtered or not.

Proposal j of label i is a pure function of (seed, label, j): its latent, its accept draw, its verdict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from cgankd.config.settings import SynthesisSettings
from cgankd.core import rng
from cgankd.gan.generator import Sampler
from cgankd.labels import LabelPlan
from cgankd.nets.feature_extractor import Observer
from cgankd.synthesis import adjust, rejection
from cgankd.synthesis.density_ratio import RatioNetwork
from cgankd.tasks import Task


@dataclasses.dataclass
class Block:
    """Proposals [l, n] of l labels: what was generated and what was found out about it."""

    label: Tensor  # int64 [l], rows of the plan
    index: Tensor  # int64 [l, n]
    images: Tensor  # uint8 [l * n, C, H, W]
    outputs: Tensor  # [l * n, number of outputs], the teachers' mean vote
    error: Tensor  # [l, n], the mean of the teachers' errors
    ratio: Tensor  # [l, n]; all 1 without a ratio network
    accepted: Tensor  # bool [l, n], by the density ratio
    kept: Tensor  # bool [l, n], accepted, not filtered out, and within the quota
    considered: Tensor  # bool [l, n]; a label's proposals after its quota was full don't count


class Proposals:
    """Everything that is the same for burn-in, calibration and the real thing. ratio None: all are accepted."""

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

    def look(self, plan: LabelPlan, label: Tensor, first: Tensor, count: int, stream: str) -> Block:
        """Generate proposals ``first .. first + count - 1`` of each label and weigh them; all pass so far."""
        index = first[:, None] + torch.arange(count)
        targets = plan.targets[label].repeat_interleave(count)
        images = self.generator.sample(targets, index.flatten(), rng.key(self.seed, stream))
        votes, features = self.observer.votes(images)
        weights = self.task.confidence(votes) if self.observer.by_confidence else None
        error = adjust.disagreement(self.task, votes, targets.to(votes.device), weights).cpu().view(index.shape)
        ratio = torch.ones(index.shape)
        if self.ratio is not None:
            with torch.no_grad():
                ratio = self.ratio(features, targets.to(features.device)).float().cpu().view(index.shape)
        everything = torch.ones(index.shape, dtype=torch.bool)
        outputs = self.task.consensus(votes, weights).cpu()
        return Block(label, index, images, outputs, error, ratio, everything, everything, everything)

    def judged(self, plan: LabelPlan, maxima: Tensor | None, stream: str, alpha: Tensor | None) -> Iterator[Block]:
        """Blocks of judged proposals, until every label's quota or its bound on draws is reached.

        maxima: M of each label, None where all are accepted. alpha: the filter's threshold of each group, or None.
        """
        kept = torch.zeros_like(plan.quota)
        drawn = torch.zeros_like(plan.quota)
        bound = torch.minimum(plan.quota * self.settings.max_draws, self.generator.available(plan.targets))
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
                draws = rng.uniform(
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


def _counters(targets: Tensor) -> Tensor:
    return targets.float().view(torch.int32) if targets.is_floating_point() else targets
