"""Losses over tokens: cross-entropy, three divergences between teacher and student, and ATKD as published.

Logits are [B, L, V]. ``scored``, bool [B, L], marks the places that count; every loss is a mean over these.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.distill.methods.atkd import easy_and_hard


def cross_entropy(student: Tensor, tokens: Tensor, scored: Tensor) -> Tensor:
    """-log p_s of ``tokens`` (int64 [B, L]), in nats per token: supervised fine-tuning."""
    return F.cross_entropy(student[scored], tokens[scored])


def divergence(student: Tensor, teacher: Tensor, scored: Tensor, kind: str = "forward") -> Tensor:
    """forward: KL(t || s), as in SKD (arXiv 2410.11325, equation 1) and supervised KD; reverse: KL(s || t); jsd: the
    Jensen-Shannon divergence, as in GKD (arXiv 2306.13649) with beta = 1/2. In nats per token."""
    s, t = (F.log_softmax(logits[scored], dim=-1) for logits in (student, teacher))
    if kind == "forward":
        return _kl(t, s)
    if kind == "reverse":
        return _kl(s, t)
    middle = torch.logaddexp(s, t) - math.log(2.0)
    return 0.5 * (_kl(t, middle) + _kl(s, middle))


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of log-probabilities [N, V], a mean over N."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean()


def atkd(student: Tensor, teacher: Tensor, tokens: Tensor, scored: Tensor, easy: float = 0.2) -> Tensor:
    """easy mean_easy KL(q) + (1 - easy) mean_hard (KL(b) + KL(q)), as published (arXiv 2402.11890).

    b = (p_y, 1 - p_y) for the token y of the text (int64 [B, L]); q is the distribution over the other tokens, given
    that it is not y. A token is easy where 1 - p_t(y) is below its median in the batch.
    """
    label = tokens[scored]
    every = torch.ones_like(label, dtype=torch.bool)
    easy_loss, hard_loss = easy_and_hard(student[scored], teacher[scored], label, (every,))
    return easy * easy_loss + (1.0 - easy) * hard_loss
