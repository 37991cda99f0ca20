"""Interleaved sampling (SKD): the student proposes tokens, the teacher replaces those that it ranks low.

For each place n of a sequence (arXiv 2410.11325, algorithm 1):

    y ~ p_s(. | before);  where y is not among the K most probable of p_t(. | before):  y ~ p_t(. | before)

To save time the student proposes gamma tokens, and the teacher reads all of them at once. The proposals before the
first refused one stay, that one is replaced, and the rest is discarded. Random numbers depend on (sequence, place)
alone, so the places after a refused token get the same ones again: gamma changes the time only.
"""

from __future__ import annotations

import dataclasses
import inspect

import torch
from torch import Tensor, nn

from cgankd.core import rng
from cgankd.lm.settings import SamplingSettings


@dataclasses.dataclass(frozen=True)
class Sampled:
    """What was sampled after each prompt: B sequences of L tokens."""

    tokens: Tensor  # int64 [B, L]; after an end token only end tokens
    mask: Tensor  # bool [B, L]: true up to the first end token, included
    proposed: Tensor  # int64 [B, L]: what the student proposed at each place of the final sequence
    accepted: Tensor  # bool [B, L]: whether it stayed

    @property
    def acceptance(self) -> float:
        """The share of proposed tokens that stayed."""
        return float(self.accepted[self.mask].double().mean())


class _Reader:
    """A model with its cache: the keys and values of all tokens that it has read."""

    def __init__(self, model: nn.Module) -> None:
        from transformers import DynamicCache

        self.model = model
        # transformers 5.24 renamed the argument; from 5.40 the old name may be ignored, and so the cache
        name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        self.cache = {name: DynamicCache(config=model.config)}

    def __call__(self, tokens: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """float32 logits [B, n, V] after each of ``tokens`` [B, n], whose positions in their sequences are ``places``.

        mask: bool [B, read before + n], false for padding and refused tokens in the cache.
        """
        result = self.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=places,
            use_cache=True,
            **self.cache,
        )
        logits: Tensor = result.logits
        return logits.float()


@torch.no_grad()
def sample(
    student: nn.Module,
    prompts: Tensor,
    settings: SamplingSettings,
    *,
    ids: Tensor,
    seed: int,
    teacher: nn.Module | None = None,
    end: int | None = None,
    prompt_mask: Tensor | None = None,
) -> Sampled:
    """Sample ``settings.length`` tokens after each of ``prompts`` (int64 [B, P]); without a teacher, the student's own.

    student, teacher: causal models of transformers in eval mode, with the same tokens and full attention (no sliding
    window). ids: int64 [B], one for each sequence, whose random numbers depend on (seed, id, place) alone.
    ``settings.top_k``: K; V gives the student's own sampling, 0 the teacher's. end: the token that ends a sequence.
    prompt_mask: bool [B, P], false where a shorter prompt is padded, at its left.
    """
    state = _Sampling(prompts, prompt_mask, settings, ids, seed, end)
    student_reader, teacher_reader = _Reader(student), None if teacher is None else _Reader(teacher)
    for reader in (student_reader, teacher_reader):
        if reader is not None:
            state.read_prompts(reader)
    while state.unfinished:
        places = state.places()
        proposed = state.propose(student_reader, places)
        if teacher_reader is None:
            state.settle(proposed, proposed, torch.full_like(state.done, settings.gamma))
        else:
            state.settle(*state.correct(teacher_reader, proposed, places))
    return state.result()


class _Sampling:
    """The state of :func:`sample`. Each round adds up to gamma tokens to every sequence.

    A refused token stays in both caches and is masked there, so sequences may progress at different speeds.
    """

    def __init__(
        self,
        prompts: Tensor,
        prompt_mask: Tensor | None,
        settings: SamplingSettings,
        ids: Tensor,
        seed: int,
        end: int | None,
    ) -> None:
        self.prompts, self.settings, self.ids, self.seed, self.end = prompts, settings, ids, seed, end
        batch, width = prompts.shape
        mask = torch.ones_like(prompts, dtype=torch.bool) if prompt_mask is None else prompt_mask
        self.start = mask.sum(1)  # the place of the first new token
        self.mask = mask[:, :-1]  # of the tokens in the caches: all but the last, which the first round reads
        self.last = prompts[:, -1]
        self.last_place = width + settings.length - 1
        self.column = torch.arange(settings.gamma, device=prompts.device)
        self.done = torch.zeros_like(self.start)  # the number of new tokens that are final
        self.table = torch.zeros(  # tokens, proposed, accepted
            3, batch, settings.length + settings.gamma, dtype=torch.int64, device=prompts.device
        )

    @property
    def unfinished(self) -> bool:
        """Whether a sequence still needs tokens."""
        return bool((self.done < self.settings.length).any())

    def read_prompts(self, reader: _Reader) -> None:
        """Let a model read the prompts but for their last token."""
        if self.prompts.shape[1] > 1:
            places = (self.mask.long().cumsum(1) - 1).clamp_min(0)
            reader(self.prompts[:, :-1], self.mask, places)

    def places(self) -> Tensor:
        """The places of the tokens that this round reads, int64 [B, gamma]: the last final one, then proposals."""
        return (self.start[:, None] - 1 + self.done[:, None] + self.column).clamp_max(self.last_place)

    def propose(self, student: _Reader, places: Tensor) -> Tensor:
        """The student's next gamma tokens, int64 [B, gamma]."""
        proposed, token = [], self.last
        for ahead in range(self.settings.gamma):
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
            logits = student(token[:, None], self.mask, places[:, ahead : ahead + 1])[:, 0]
            uniform = rng.uniform(self.seed, "lm/student", self.ids, self.done + ahead)
            token = draw(logits / self.settings.temperature, uniform)
            proposed.append(token)
        return torch.stack(proposed, dim=1)

    def correct(self, teacher: _Reader, proposed: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The proposals with the first refused one replaced, as they were, and how many are accepted before it [B]."""
        logits = teacher(torch.cat([self.last[:, None], proposed[:, :-1]], dim=1), self.mask, places)
        kept = among_best(logits, proposed, self.settings.top_k).long().cumprod(1).sum(1)
        at = kept.clamp_max(self.settings.gamma - 1)
        refused = logits[torch.arange(len(at), device=at.device), at]
        uniform = rng.uniform(self.seed, "lm/teacher", self.ids, self.done + at)
        replacement = draw(refused / self.settings.temperature, uniform)
        return torch.where(self.column == kept[:, None], replacement[:, None], proposed), proposed, kept

    def settle(self, tokens: Tensor, proposed: Tensor, kept: Tensor) -> None:
        """Write this round's tokens, of which the first ``kept`` proposals and one replacement are final."""
        gamma, length = self.settings.gamma, self.settings.length
        accepted = self.column < kept[:, None]
        at = self.done[:, None] + self.column  # tokens after the final ones are overwritten, or cut off at the end
        self.table.scatter_(2, at.expand(3, -1, -1), torch.stack([tokens, proposed, accepted.long()]))
        self.mask[:, -gamma:] = self.column <= kept[:, None]  # the caches hold the last token and all proposals but one
        count = (kept + 1).clamp_max(gamma)
        self.last = tokens.gather(1, count[:, None] - 1)[:, 0]
        self.done = self.done + count
        if self.end is not None:
            ended = ((tokens == self.end) & (self.column < count[:, None])).any(1)
            self.done = torch.where(ended, length, self.done)
        self.done = self.done.clamp_max(length)

    def result(self) -> Sampled:
        """The first ``length`` tokens; after an end token there are only end tokens."""
        tokens, proposed, accepted = self.table[..., : self.settings.length]
        mask = torch.ones_like(tokens, dtype=torch.bool)
        if self.end is not None:
            ends = tokens == self.end
            mask = ends.long().cumsum(1) - ends.long() == 0
            tokens = torch.where(mask, tokens, self.end)
        return Sampled(tokens, mask, proposed, accepted.bool())


@torch.no_grad()
def forgets(model: nn.Module) -> bool:
    """Whether refused and masked tokens do not change later logits, as :func:`sample` requires.

    They do where the state is more than keys and values, as in models with convolutions or recurrences.
    """

    def logits_after(refused: int) -> Tensor:
        reader, text = _Reader(model), torch.tensor([[0, 1, 2]], device=next(model.parameters()).device)
        mask, place = torch.ones_like(text, dtype=torch.bool), text.new_full((1, 1), 3)
        reader(text, mask, text)
        for _ in range(refused):
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            reader(text[:, :1], mask, place)
            mask[:, -1] = False
        return reader(text[:, 1:], torch.cat([mask, mask.new_ones(1, 2)], dim=1), torch.cat([place, place + 1], dim=1))

    alone = logits_after(0)
    return bool((logits_after(2) - alone).abs().max() <= 1e-5 * alone.abs().max())  # ten times the rounding error


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Tokens by inverse transform sampling, int64 [B]; logits [B, V], uniform [B] in [0, 1)."""
    reached = torch.softmax(logits.double(), dim=-1).cumsum(-1)
    token = (reached <= uniform[:, None].to(reached) * reached[:, -1:]).sum(-1)
    return token.clamp_max(logits.shape[-1] - 1)


def among_best(logits: Tensor, tokens: Tensor, top_k: int) -> Tensor:
    """Whether fewer than ``top_k`` tokens have a larger logit; logits [..., V], tokens [...] -> bool [...]."""
    own = logits.gather(-1, tokens[..., None])
    return (logits > own).sum(-1) < top_k
