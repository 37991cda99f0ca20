"""Counts per label and example images of the synthesis, for results.json and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cgankd.core.groups import in_groups
from cgankd.labels import LabelPlan
from cgankd.synthesis.proposals import Block
from cgankd.synthesis.rejection import effective_sample_share
from cgankd.tasks import Task

OUTCOMES = ("generated", "accepted", "kept")
EXAMPLES = 60  # images for the report of each outcome: kept, dropped by the filter, rejected by the density ratio


class Tally:
    """Counts of generated, accepted and kept images per label."""

    def __init__(self, plan: LabelPlan, task: Task) -> None:
        self.plan, self.task = plan, task
        self.counts = {name: torch.zeros_like(plan.quota) for name in OUTCOMES}
        self.scores = {name: torch.zeros(len(plan.quota), dtype=torch.float64) for name in OUTCOMES}

    def add(self, block: Block) -> None:
        """Count a block of proposals."""
        masks = {"generated": block.considered, "accepted": block.accepted, "kept": block.kept}
        labels = self.task.from_target(self.plan.targets[block.label]).repeat_interleave(block.index.shape[1])
        score = self.task.score(block.outputs, labels).reshape(block.index.shape)
        for name, mask in masks.items():
            self.counts[name][block.label] += mask.sum(dim=1)
            self.scores[name][block.label] += (score * mask).sum(dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {**self.counts, **{f"score_{name}": score for name, score in self.scores.items()}}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Resume from :meth:`tensors`."""
        self.counts = {name: tensors[name] for name in OUTCOMES}
        self.scores = {name: tensors[f"score_{name}"] for name in OUTCOMES}

    def _metric(self, name: str) -> float:
        """The teacher's metric on one outcome: the mean of each label, weighted by the images asked for.

        Not the mean over images, because labels whose images are dropped are drawn more often than others.
        """
        count = self.counts[name]
        weight = self.plan.quota * (count > 0)
        means = self.scores[name] / count.clamp(min=1)
        return float((weight * means).sum() / weight.sum().clamp(min=1))

    def summary(self, weights: Tensor | None, at: Tensor | None) -> dict[str, Any]:
        """Totals and counts per label bin.

        weights: float32 [B], the burn-in ratios divided by the mean of their pool. at: int64 [B], their labels, rows of
        the plan. Both are None without subsampling.
        """
        names, place = self.task.bins(self.task.from_target(self.plan.targets))
        counts = {"requested": self.plan.quota, **self.counts}
        per_bin = {
            name: torch.zeros(len(names), dtype=torch.int64).index_add_(0, place, count).tolist()
            for name, count in counts.items()
        }
        total = {name: int(count.sum()) for name, count in counts.items()}

        def entry(count: dict[str, int], inside: Tensor | None) -> dict[str, Any]:
            share = None if inside is None or not len(inside) else effective_sample_share(inside)
            draws = count["generated"] / count["kept"] if count["kept"] else None
            return {**count, "effective_sample_share": share, "draws_per_image": draws}

        inside: Sequence[Tensor | None] = [None] * len(names)
        if weights is not None and at is not None:
            inside = in_groups(weights, place[at], len(names))
        per_label = [
            {"label": label, **entry({name: count[number] for name, count in per_bin.items()}, inside[number])}
            for number, label in enumerate(names)
        ]
        return {
            **entry(total, weights),
            "acceptance": total["accepted"] / max(total["generated"], 1),
            "teacher_metric": {name: self._metric(name) for name in OUTCOMES},
            "per_label": per_label,
        }


class Examples:
    """A few images of each outcome: the first ones of each label."""

    COLUMNS = ("images", "labels", "predictions", "errors", "ratios")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rows: dict[str, list[tuple[Tensor, ...]]] = {"kept": [], "dropped": [], "rejected": []}
        self.taken: dict[str, int] = dict.fromkeys(self.rows, 0)

    def add(self, block: Block, plan: LabelPlan) -> None:
        """Take some of a block's proposals, while fewer than ``EXAMPLES`` of their outcome were taken."""
        outcomes = {
            "kept": block.kept,
            "dropped": block.accepted & ~block.kept,
            "rejected": block.considered & ~block.accepted,
        }
        per_label = max(1, EXAMPLES // len(plan.targets))
        for name, mask in outcomes.items():
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
        """``OUTCOME_COLUMN`` -> one row per example."""
        return {
            f"{outcome}_{column}": torch.cat([row[number] for row in rows])
            for outcome, rows in self.rows.items()
            if rows
            for number, column in enumerate(self.COLUMNS)
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Resume from :meth:`tensors`."""
        for outcome in self.rows:
            if f"{outcome}_{self.COLUMNS[0]}" in tensors:
                self.rows[outcome] = [tuple(tensors[f"{outcome}_{column}"] for column in self.COLUMNS)]
                self.taken[outcome] = len(self.rows[outcome][0][0])
