"""Scores of a language model: bits per byte of unseen text, and its distance to the teacher on its own text."""

from __future__ import annotations

import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.lm.losses import divergence
from cgankd.lm.models import next_logits
from cgankd.lm.sampling import sample
from cgankd.lm.settings import SamplingSettings
from cgankd.lm.text import Corpus
from cgankd.training.faults import NotFinite

BATCH = 32
MOST_NATS = math.log(sys.float_info.max)


@torch.no_grad()
def nats(model: nn.Module, tokens: Tensor, window: int) -> float:
    """The sum of -log p of all tokens [N] but the first, in nats; windows of ``window`` tokens overlap by one token."""
    model.eval()
    device = next(model.parameters()).device
    count = len(tokens) - 1
    padded = F.pad(tokens, (0, -count % (window - 1)))
    pieces = padded.unfold(0, window, window - 1)  # [windows, window]
    real = torch.arange(pieces.numel() - len(pieces)).view(len(pieces), -1) < count
    total = 0.0
    for piece, mask in zip(pieces.split(BATCH), real.split(BATCH), strict=True):
        logits = next_logits(model, piece.to(device))[mask.to(device)]
        total += float(F.cross_entropy(logits, piece[:, 1:][mask].to(device), reduction="sum"))
    return total


def scores(model: nn.Module, corpus: Corpus, part: str, window: int) -> dict[str, float]:
    """``perplexity`` per token, and ``bits_per_byte`` of the split's documents; both count end tokens.

    Raises NotFinite where the perplexity is more than a float can hold.
    """
    total = nats(model, corpus.tokens[part], window)
    per_token = total / (len(corpus.tokens[part]) - 1)
    if not per_token < MOST_NATS:
        fault = f"a token of the {part} split costs the model {per_token:.4g} nats, so its perplexity is not finite"
        raise NotFinite(fault, "a lower learning_rate may help where it was trained here")
    return {
        "bits_per_byte": total / math.log(2.0) / corpus.sizes[part],
        "perplexity": math.exp(per_token),
    }


@torch.no_grad()
def against_teacher(
    student: nn.Module, teacher: nn.Module, corpus: Corpus, settings: SamplingSettings, test_prompts: int
) -> dict[str, float]:
    """On continuations of the test prompts, sampled with the same random numbers for every student:

    kl: KL(t || s) per token of the student's own text, in nats; acceptance: the share of its proposals that the
    teacher accepts in interleaved sampling.
    """
    student.eval()
    teacher.eval()
    device = next(student.parameters()).device
    prompts = corpus.windows(0, 0, test_prompts, settings.prompt, "test").to(device)
    ids = torch.arange(len(prompts), device=device)
    sums = torch.zeros(4, dtype=torch.float64)  # of KL, of its tokens, of accepted, of proposed
    for part, own in zip(prompts.split(BATCH), ids.split(BATCH), strict=True):
        alone = sample(student, part, settings, ids=own, seed=0, end=corpus.end)
        text = torch.cat([part, alone.tokens], dim=1)
        logits = [next_logits(model, text)[:, settings.prompt - 1 :] for model in (student, teacher)]
        tokens = float(alone.mask.sum())
        mixed = sample(student, part, settings, ids=own, seed=0, teacher=teacher, end=corpus.end)
        kl = float(divergence(logits[0], logits[1], alone.mask))
        accepted = float((mixed.accepted & mixed.mask).sum())
        sums += torch.tensor([kl * tokens, tokens, accepted, float(mixed.mask.sum())], dtype=torch.float64)
    return {"kl": float(sums[0] / sums[1]), "acceptance": float(sums[2] / sums[3])}
