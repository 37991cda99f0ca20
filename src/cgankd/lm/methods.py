"""The methods: which text follows a prompt of real text, and which loss the student minimises on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from cgankd.core.profiling import part
from cgankd.lm import losses
from cgankd.lm.models import next_logits
from cgankd.lm.sampling import sample
from cgankd.lm.settings import LessonSettings, SamplingSettings
from cgankd.lm.text import Corpus

# step -> the loss, and numbers for the history
Lesson = Callable[[int], tuple[Tensor, dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class Definition:
    """The text after the prompt, and the loss, of a method."""

    text: Literal["real", "student", "interleaved"]
    loss: Literal["labels", "divergence", "atkd"]
    version: int = 1  # raised where the same settings give other numbers


METHODS: Mapping[str, Definition] = {
    "sft": Definition("real", "labels"),
    "kd": Definition("real", "divergence"),
    "atkd": Definition("real", "atkd", version=2),
    "onpolicy": Definition("student", "divergence"),
    "skd": Definition("interleaved", "divergence"),
}


def from_labels(model: nn.Module, corpus: Corpus, batch: int, window: int, seed: int) -> Lesson:
    """Cross-entropy on every token of real text: for the teacher, and the student before its distillation."""
    device = next(model.parameters()).device

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        tokens = corpus.windows(seed, step, batch, window).to(device)
        scored = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
        with part("student"):
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
    """The loss of ``method`` on the tokens after the prompt; at a step all methods have the same prompts."""
    definition, batch = METHODS[method], settings.fit.batch_size
    interleaved = definition.text == "interleaved"
    if not interleaved:
        sampling = sampling.model_copy(update={"gamma": 1})  # nobody checks the student's tokens
    device = next(student.parameters()).device
    teacher.eval()

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        tokens = corpus.windows(seed, step, batch, sampling.prompt + sampling.length).to(device)
        scored = torch.ones_like(tokens[:, sampling.prompt :], dtype=torch.bool)
        notes = {}
        if definition.text != "real":
            student.eval()  # because the student samples without dropout when it is used
            with part("sampling"):
                sampled = sample(
                    student,
                    tokens[:, : sampling.prompt],
                    sampling,
                    ids=step * batch + torch.arange(batch, device=device),
                    seed=seed,
                    teacher=teacher if interleaved else None,
                    end=corpus.end,
                )
            student.train()
            torch.clear_autocast_cache()  # in older torch, weights that were cast while sampling would get no gradient
            tokens, scored = torch.cat([tokens[:, : sampling.prompt], sampled.tokens], dim=1), sampled.mask
            if interleaved:
                notes["acceptance"] = sampled.acceptance
        labels = tokens[:, sampling.prompt :]
        with part("student"):
            student_logits = next_logits(student, tokens)[:, sampling.prompt - 1 :]
        if definition.loss == "labels":
            return losses.cross_entropy(student_logits, labels, scored), notes
        with part("teacher"), torch.no_grad():
            teacher_logits = next_logits(teacher, tokens)[:, sampling.prompt - 1 :]
        if definition.loss == "atkd":
            return losses.atkd(student_logits, teacher_logits, labels, scored, settings.easy), notes
        return losses.divergence(student_logits, teacher_logits, scored, settings.divergence), notes

    return lesson
