"""The methods: whose text the student sees after a prompt of real text, and what it minimises on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from cgankd.lm import losses
from cgankd.lm.models import next_logits
from cgankd.lm.sampling import sample
from cgankd.lm.settings import LessonSettings, SamplingSettings
from cgankd.lm.text import Corpus

# step -> the loss, and numbers for the history
Lesson = Callable[[int], tuple[Tensor, dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class How:
    """What makes a method."""

    text: Literal["real", "student", "interleaved"]
    loss: Literal["labels", "divergence", "atkd"]
    version: int = 1  # raised where the same settings give other numbers


METHODS: Mapping[str, How] = {
    "sft": How("real", "labels"),
    "kd": How("real", "divergence"),
    "atkd": How("real", "atkd", version=2),
    "onpolicy": How("student", "divergence"),
    "skd": How("interleaved", "divergence"),
}


def from_labels(model: nn.Module, corpus: Corpus, batch: int, window: int, seed: int) -> Lesson:
    """Cross-entropy on every token of real text: how a teacher, and a student before its distillation, learns."""
    device = next(model.parameters()).device

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        tokens = corpus.windows(seed, step, batch, window).to(device)
        scored = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
        return losses.cross_entropy(next_logits(model, tokens), tokens[:, 1:], scored), {}

    return lesson


def from_teacher(
    method: str,
    student: nn.Module,
    teacher: nn.Module,
    corpus: Corpus,
    settings: LessonSettings,
    sampling: SamplingSettings,
    seed: int,
) -> Lesson:
    """What ``method`` minimises, on the tokens after the prompt; every method has the same prompts at a step."""
    how, batch = METHODS[method], settings.fit.batch_size
    device = next(student.parameters()).device
    teacher.eval()

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        tokens = corpus.windows(seed, step, batch, sampling.prompt + sampling.length).to(device)
        after = torch.ones_like(tokens[:, sampling.prompt :], dtype=torch.bool)
        notes = {}
        if how.text != "real":
            student.eval()  # what is sampled is what the student will say, without dropout
            sampled = sample(
                student,
                tokens[:, : sampling.prompt],
                sampling.length,
                ids=step * batch + torch.arange(batch, device=device),
                seed=seed,
                teacher=teacher if how.text == "interleaved" else None,
                top_k=sampling.top_k,
                gamma=sampling.gamma if how.text == "interleaved" else 1,
                temperature=sampling.temperature,
                end=corpus.end,
            )
            student.train()
            torch.clear_autocast_cache()  # older torch: weights rounded in there would get no gradient
            tokens, after = torch.cat([tokens[:, : sampling.prompt], sampled.tokens], dim=1), sampled.mask
            if how.text == "interleaved":
                notes["acceptance"] = sampled.acceptance
        labels = tokens[:, sampling.prompt :]
        said = next_logits(student, tokens)[:, sampling.prompt - 1 :]
        if how.loss == "labels":
            return losses.cross_entropy(said, labels, after), notes
        with torch.no_grad():
            taught = next_logits(teacher, tokens)[:, sampling.prompt - 1 :]
        if how.loss == "atkd":
            return losses.atkd(said, taught, labels, after, settings.easy), notes
        return losses.divergence(said, taught, after, settings.divergence), notes

    return lesson
