"""Interleaved sampling (SKD): the student proposes tokens, the teacher replaces those that it ranks low.

For each place n of a sequence (arXiv 2410.11325, algorithm 1):

    y ~ p_s(. | before);  where y is not among the K most probable of p_t(. | before):  y ~ p_t(. | before)

To spare the teacher's time the student proposes gamma tokens before the teacher looks at all of them at once: the
longest prefix of accepted ones stays, the first refused one is replaced, the rest is thrown away. Random numbers
belong to (sequence, place), so places behind a refused token get the same ones again: gamma changes the time only.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from cgankd.core import rng


@dataclasses.dataclass(frozen=True)
class Sampled:
    """What was sampled after each prompt: B sequences of L tokens."""

    tokens: Tensor  # int64 [B, L]; behind an end token only end tokens
    mask: Tensor  # bool [B, L]: up to the first end token, which counts
    proposed: Tensor  # int64 [B, L]: what the student proposed at each place of the final sequence
    accepted: Tensor  # bool [B, L]: whether it stayed

    @property
    def acceptance(self) -> float:
        """The share of proposed tokens that stayed."""
        return float(self.accepted[self.mask].double().mean())


class _Reader:
    """A model that reads on: it keeps keys and values of what it has read (its cache)."""

    def __init__(self, model: nn.Module) -> None:
        from transformers import DynamicCache

        self.model = model
        self.cache = DynamicCache(config=model.config)

    def __call__(self, tokens: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """float32 logits [B, n, V] behind each of ``tokens`` [B, n], which stand at ``places`` of their sequences.

        mask: bool [B, read before + n], false where the cache holds what is not, or no longer, in the sequence.
        """
        read = self.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=places,
            past_key_values=self.cache,
            use_cache=True,
        )
        logits: Tensor = read.logits
        return logits.float()


@torch.no_grad()
def sample(
    student: nn.Module,
    prompts: Tensor,
    length: int,
    *,
    ids: Tensor,
    seed: int,
    teacher: nn.Module | None = None,
    top_k: int = 25,
    gamma: int = 5,
    temperature: float = 1.0,
    end: int | None = None,
    prompt_mask: Tensor | None = None,
) -> Sampled:
    """Sample ``length`` tokens after each of ``prompts`` (int64 [B, P]); without a teacher, the student's own.

    student, teacher: causal models of transformers in eval mode, with the same tokens; their attention must see all
    that stands before (no sliding window). ids: int64 [B], names each sequence, whose random numbers are a function
    of (seed, id, place) alone. top_k: K; V keeps the student's own sampling, 0 makes it the teacher's. end: the
    token that ends a sequence. prompt_mask: bool [B, P], false where a shorter prompt is filled up, at its left.

    A refused token stays in both caches and is masked there, so a sequence can be further on than its neighbour.
    """
    batch, width = prompts.shape
    device = prompts.device
    mask = torch.ones_like(prompts, dtype=torch.bool) if prompt_mask is None else prompt_mask
    start = mask.sum(1)  # the place of the first new token
    readers = [_Reader(model) for model in (student, teacher) if model is not None]
    mask = mask[:, :-1]  # of what has been read: all but the last token, which the first round begins with
    if width > 1:
        places = (mask.long().cumsum(1) - 1).clamp_min(0)
        for reader in readers:
            reader(prompts[:, :-1], mask, places)
    column = torch.arange(gamma, device=device)
    found = torch.zeros(3, batch, length + gamma, dtype=torch.int64, device=device)  # tokens, proposed, accepted
    done = torch.zeros_like(start)  # new tokens that are settled
    last = prompts[:, -1]
    while bool((done < length).any()):
        places = (start[:, None] - 1 + done[:, None] + column).clamp_max(width + length - 1)
        drafts, token = [], last
        for ahead in range(gamma):
            mask = torch.cat([mask, mask.new_ones(batch, 1)], dim=1)
            logits = readers[0](token[:, None], mask, places[:, ahead : ahead + 1])[:, 0]
            token = draw(logits / temperature, rng.uniform(seed, "lm/student", ids, done + ahead))
            drafts.append(token)
        proposed = torch.stack(drafts, dim=1)  # [B, gamma]
        kept = torch.full_like(done, gamma)
        tokens = proposed
        if teacher is not None:
            logits = readers[1](torch.cat([last[:, None], proposed[:, :-1]], dim=1), mask, places)
            kept = among_best(logits, proposed, top_k).long().cumprod(1).sum(1)
            at = kept.clamp_max(gamma - 1)
            refused = logits[torch.arange(batch, device=device), at]
            instead = draw(refused / temperature, rng.uniform(seed, "lm/teacher", ids, done + at))
            tokens = torch.where(column == kept[:, None], instead[:, None], proposed)
        stays = column < kept[:, None]
        at = done[:, None] + column  # what is written too far is written again, or cut off
        found.scatter_(2, at.expand(3, -1, -1), torch.stack([tokens, proposed, stays.long()]))
        mask[:, -gamma:] = column <= kept[:, None]  # read were the last token and all proposals but the last
        count = (kept + 1).clamp_max(gamma)
        last = tokens.gather(1, count[:, None] - 1)[:, 0]
        done = done + count
        if end is not None:
            ended = ((tokens == end) & (column < count[:, None])).any(1)
            done = torch.where(ended, length, done)
        done = done.clamp_max(length)
    tokens, proposed, accepted = found[..., :length]
    alive = torch.ones_like(tokens, dtype=torch.bool)
    if end is not None:
        ends = tokens == end
        alive = ends.long().cumsum(1) - ends.long() == 0
        tokens = torch.where(alive, tokens, end)
    return Sampled(tokens, alive, proposed, accepted.bool())


@torch.no_grad()
def forgets(model: nn.Module) -> bool:
    """Whether a token that was read, refused and masked leaves no trace: :func:`sample` needs a model that does so.

    One whose state is not keys and values alone, as convolutions and recurrences keep it, does not.
    """

    def said(refused: int) -> Tensor:
        reader, text = _Reader(model), torch.tensor([[0, 1, 2]], device=next(model.parameters()).device)
        mask, place = torch.ones_like(text, dtype=torch.bool), text.new_full((1, 1), 3)
        reader(text, mask, text)
        for _ in range(refused):
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            reader(text[:, :1], mask, place)
            mask[:, -1] = False
        return reader(text[:, 1:], torch.cat([mask, mask.new_ones(1, 2)], dim=1), torch.cat([place, place + 1], dim=1))

    alone = said(0)
    return bool((said(2) - alone).abs().max() <= 1e-5 * alone.abs().max())  # rounding is a tenth of it


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token whose share of [0, 1) ``uniform`` [B] falls into; logits [B, V], int64 [B]."""
    reached = torch.softmax(logits.double(), dim=-1).cumsum(-1)
    token = (reached <= uniform[:, None].to(reached) * reached[:, -1:]).sum(-1)
    return token.clamp_max(logits.shape[-1] - 1)


def among_best(logits: Tensor, tokens: Tensor, top_k: int) -> Tensor:
    """Whether fewer than ``top_k`` tokens have more than the token's own logit; [..., V], [...] -> bool [...]."""
    own = logits.gather(-1, tokens[..., None])
    return (logits > own).sum(-1) < top_k
