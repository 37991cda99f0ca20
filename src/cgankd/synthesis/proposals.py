"""Proposals: generated images with teacher outputs and density ratios, which are accepted and filtered or not.

Proposal j of label i depends on (seed, label, j) alone: its latent, its random number for acceptance, and the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from cgankd.core import profiling, rng
from cgankd.core.errors import UserError
from cgankd.core.shared_calls import RowFunction, Rows
from cgankd.gan.generator import Sampler
from cgankd.labels import LabelPlan
from cgankd.nets.feature_extractor import FeatureExtractor
from cgankd.synthesis import adjust, rejection
from cgankd.synthesis.density_ratio import RatioNetwork
from cgankd.synthesis.rejection import Acceptance
from cgankd.tasks import Task


@dataclasses.dataclass
class Block:
    """n proposals of each of l labels."""

    label: Tensor  # int64 [l], rows of the plan
    index: Tensor  # int64 [l, n]
    images: Tensor  # uint8 [l * n, C, H, W]
    outputs: Tensor  # [l * n, number of outputs], the consensus of the teachers
    error: Tensor  # [l, n], the mean of the teachers' errors
    ratio: Tensor  # [l, n]; all 1 without a ratio network
    accepted: Tensor  # bool [l, n], by the density ratio
    kept: Tensor  # bool [l, n], accepted, not filtered out, and within the quota
    considered: Tensor  # bool [l, n]; false for proposals of a label after its quota is full


@dataclasses.dataclass
class Drawn:
    """The progress of :meth:`Proposals.draw`, which updates it in place and can resume from it."""

    kept: Tensor  # int64 [L], proposals of each label of the plan that were kept
    drawn: Tensor  # int64 [L], all proposals that were generated
    maxima: Tensor | None  # float32 [L], M of each label; None where all are accepted

    @classmethod
    def nothing(cls, plan: LabelPlan, acceptance: Acceptance | None = None) -> Drawn:
        """Before the first proposal."""
        maxima = None if acceptance is None else acceptance.maxima.clone()
        return cls(torch.zeros_like(plan.quota), torch.zeros_like(plan.quota), maxima)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        tensors = {"kept": self.kept, "drawn": self.drawn}
        return tensors if self.maxima is None else {**tensors, "maxima": self.maxima}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Drawn:
        """The progress that :meth:`tensors` saved."""
        return cls(tensors["kept"], tensors["drawn"], tensors.get("maxima"))


@dataclasses.dataclass(frozen=True)
class Proposals:
    """Draws proposals, for burn-in, calibration and synthesis.

    ratio: None where no ratio is needed. batch_size: images generated at once, by all processes together. max_draws:
    most draws per image of the quota. by_all: :meth:`rows`, computed by several processes.
    """

    generator: Sampler
    extractor: FeatureExtractor
    ratio: RatioNetwork | None
    task: Task
    seed: int
    batch_size: int
    max_draws: int
    by_all: RowFunction | None = None

    @contextmanager
    def shared(self) -> Iterator[Proposals]:
        """In this block, which only the first process of a run enters, all of them draw the proposals."""
        with self.extractor.shared(self.rows) as by_all:
            yield dataclasses.replace(self, by_all=by_all)

    def held(self, plan: LabelPlan) -> Tensor:
        """How many images the generator has at each label, int64 [L]; UserError where it has none at all."""
        held = self.generator.available(plan.targets)
        if not bool((held > 0).any()):
            raise UserError("the generator holds no image at any of the requested labels; allowed: at least one")
        return held

    def generate(self, plan: LabelPlan, label: Tensor, first: Tensor, count: int, stream: str) -> Block:
        """Proposals ``first .. first + count - 1`` of each label with outputs, errors, ratios; all marked as kept."""
        index = first[:, None] + torch.arange(count)
        targets = plan.targets[label].repeat_interleave(count)
        rows = (self.by_all or self.rows)(targets, index.flatten(), rng.key(self.seed, stream))
        error, ratio = (rows[name].view(index.shape) for name in ("error", "ratio"))
        everything = torch.ones(index.shape, dtype=torch.bool)
        return Block(label, index, rows["images"], rows["outputs"], error, ratio, everything, everything, everything)

    def rows(self, targets: Tensor, index: Tensor, seed: int) -> Rows:
        """images, outputs, error and ratio, as in :class:`Block`, of proposals ``index`` of ``targets``, both [B]."""
        with profiling.part("generator"):
            images = self.generator.sample(targets, index, seed)
        with profiling.part("teacher"):
            votes, features = self.extractor.votes(images)
        weights = self.task.confidence(votes) if self.extractor.by_confidence else None
        error = adjust.disagreement(self.task, votes, targets.to(votes.device), weights).cpu()
        ratio = torch.ones(len(index))
        if self.ratio is not None:
            with torch.no_grad(), profiling.part("ratio"):
                ratio = self.ratio(features, targets.to(features.device)).float().cpu()
        return {"images": images, "outputs": self.task.consensus(votes, weights).cpu(), "error": error, "ratio": ratio}

    def draw(
        self,
        plan: LabelPlan,
        stream: str,
        acceptance: Acceptance | None = None,
        thresholds: Tensor | None = None,
        progress: Drawn | None = None,
    ) -> Iterator[Block]:
        """Yield blocks of proposals until every label has reached its quota or its limit of draws.

        acceptance: None where all are accepted. thresholds: float32 [groups], of the filter; None: no filter.
        progress: where to resume; it is up to date whenever a block is yielded. None: start anew.
        """
        progress = progress or Drawn.nothing(plan, acceptance)
        kept, drawn, maxima = progress.kept, progress.drawn, progress.maxima
        bound = torch.minimum(plan.quota * self.max_draws, self.held(plan))
        while bool((open_ := (kept < plan.quota) & (drawn < bound)).any()):
            label = open_.nonzero().squeeze(1)[: self.batch_size]
            count = self._count(plan, label, kept, drawn, bound)
            block = self.generate(plan, label, drawn[label], count, stream)
            if acceptance is not None and maxima is not None:
                draws = rng.uniform(
                    self.seed, stream + "/accept", rng.label_counters(plan.targets[label])[:, None], block.index
                )
                block.accepted, maxima[label] = rejection.accept(block.ratio, maxima[label], draws, acceptance.rising)
            passed = block.accepted
            if thresholds is not None:
                passed = passed & adjust.keep(block.error, thresholds[plan.group[label]][:, None])
            room = (plan.quota - kept)[label][:, None]
            before = passed.cumsum(dim=1) - passed.long()
            block.considered = before < room
            block.accepted = block.accepted & block.considered
            block.kept = passed & block.considered
            kept[label] += block.kept.sum(dim=1)
            drawn[label] += count
            yield block

    def _count(self, plan: LabelPlan, label: Tensor, kept: Tensor, drawn: Tensor, bound: Tensor) -> int:
        """How many proposals of each of these labels to generate next, estimated from the share kept so far."""
        rate = (kept[label].sum() / drawn[label].sum().clamp(min=1)).clamp(min=0.05)
        rate = rate if int(drawn[label].sum()) else torch.tensor(1.0)
        wanted = ((plan.quota - kept)[label].max() / rate).ceil()
        count = int(wanted.clamp(1, max(1, self.batch_size // len(label))))
        return min(count, int((bound - drawn)[label].min()))
