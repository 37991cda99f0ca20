"""Interleaved sampling: against a loop without cache, gamma or batch; in its limits; exact probabilities."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from cgankd.core import rng
from cgankd.lm.sampling import Sampled, among_best, draw, sample
from cgankd.lm.settings import SamplingSettings

Make = Callable[..., nn.Module]
SEED, V = 5, 12
PROMPTS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8], [9, 7, 9, 3], [2, 3, 8, 4]])
IDS = torch.tensor([40, 7, 11, 0, 23])


def probabilities(model: nn.Module, tokens: list[int]) -> np.ndarray:
    """p(. | tokens), by reading all of it anew."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].double()
    return torch.softmax(logits, 0).numpy()


def drawn(p: np.ndarray, stream: str, name: int, place: int) -> int:
    u = float(rng.uniform(SEED, stream, torch.tensor(name), torch.tensor(place)))
    return int(np.searchsorted(np.cumsum(p) / p.sum(), u, side="right"))


def loop(
    student: nn.Module, teacher: nn.Module, prompt: list[int], name: int, length: int, k: int
) -> tuple[list[int], list[int], list[bool]]:
    """Algorithm 1 as printed: tokens, proposals, whether they stayed."""
    tokens, proposals, stayed = list(prompt), [], []
    for place in range(length):
        proposal = drawn(probabilities(student, tokens), "lm/student", name, place)
        p = probabilities(teacher, tokens)
        stays = proposal in np.argsort(-p)[:k]
        tokens.append(proposal if stays else drawn(p, "lm/teacher", name, place))
        proposals.append(proposal)
        stayed.append(bool(stays))
    return tokens[len(prompt) :], proposals, stayed


def run(student: nn.Module, teacher: nn.Module | None, length: int = 9, **more: object) -> Sampled:
    end = more.pop("end", None)
    settings = SamplingSettings(length=length, **more)  # type: ignore[arg-type]
    return sample(student, PROMPTS, settings, ids=IDS, seed=SEED, teacher=teacher, end=end)  # type: ignore[arg-type]


@pytest.mark.parametrize(("architecture", "k"), [("llama", 0), ("llama", 1), ("llama", 4), ("gpt2", 4)])
def test_tokens_and_proposals_are_those_of_the_printed_algorithm(make: Make, architecture: str, k: int) -> None:
    student, teacher = make(0, architecture=architecture), make(1, architecture=architecture)
    expected = [loop(student, teacher, p.tolist(), int(i), 9, k) for p, i in zip(PROMPTS, IDS, strict=True)]
    for gamma in (1, 2, 5, 11):
        found = run(student, teacher, gamma=gamma, top_k=k)
        assert found.tokens.tolist() == [tokens for tokens, _, _ in expected]
        assert found.proposed.tolist() == [proposals for _, proposals, _ in expected]
        assert found.accepted.tolist() == [stayed for _, _, stayed in expected]
        assert found.mask.all()
    share = np.mean([stayed for _, _, stayed in expected])
    assert found.acceptance == pytest.approx(share)
    if k:
        assert 0 < share < 1  # both ways were gone


@pytest.mark.parametrize("gamma", [1, 5])
def test_with_all_tokens_allowed_it_is_the_students_own_sampling(make: Make, gamma: int) -> None:
    student = make(0)
    free = run(student, make(1), gamma=gamma, top_k=V)
    assert free.accepted.all()
    assert torch.equal(free.tokens, free.proposed)
    assert torch.equal(free.tokens, run(student, None, gamma=gamma).tokens)
    assert torch.equal(free.tokens, run(student, make(2), gamma=gamma, top_k=V).tokens)  # whoever the teacher is


def test_with_no_token_allowed_it_is_the_teachers_sampling(make: Make) -> None:
    teacher = make(1)
    found = [run(make(student), teacher, top_k=0) for student in (0, 2)]
    assert not found[0].accepted.any()
    assert torch.equal(found[0].tokens, found[1].tokens)  # whoever the student is
    assert not torch.equal(found[0].proposed, found[1].proposed)


def test_with_one_token_allowed_what_stays_is_the_teachers_greedy_choice(make: Make) -> None:
    teacher = make(1)
    found = run(make(0), teacher, top_k=1)
    text = torch.cat([PROMPTS, found.tokens], dim=1)
    greedy = teacher(input_ids=text[:, :-1]).logits[:, PROMPTS.shape[1] - 1 :].argmax(-1)
    assert torch.equal(found.accepted, found.proposed == greedy)
    assert torch.equal(found.tokens[found.accepted], greedy[found.accepted])


def test_a_cold_student_proposes_and_a_cold_teacher_replaces_greedily(make: Make) -> None:
    student, teacher = make(0), make(1)
    found = run(student, teacher, top_k=2, temperature=1e-4)
    text = torch.cat([PROMPTS, found.tokens], dim=1)[:, :-1]
    best = [model(input_ids=text).logits[:, PROMPTS.shape[1] - 1 :].argmax(-1) for model in (student, teacher)]
    assert torch.equal(found.proposed, best[0])
    assert torch.equal(found.tokens, torch.where(found.accepted, *best))


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_cache_is_given_by_the_name_that_transformers_expects(make: Make, architecture: str) -> None:
    run(make(0, architecture=architecture), None, length=2)


def test_a_sequence_does_not_depend_on_its_neighbours(make: Make) -> None:
    student, teacher = make(0), make(1)
    together = run(student, teacher, top_k=4)
    settings = SamplingSettings(length=9, top_k=4)
    for row in range(len(IDS)):
        own = slice(row, row + 1)
        alone = sample(student, PROMPTS[own], settings, ids=IDS[own], seed=SEED, teacher=teacher)
        for name in ("tokens", "proposed", "accepted"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_prompts_of_different_lengths_are_filled_up_at_the_left(make: Make, architecture: str) -> None:
    student, teacher = make(0, architecture=architecture), make(1, architecture=architecture)
    lengths = [4, 1, 3, 2, 4]
    mask = torch.arange(4) >= 4 - torch.tensor(lengths)[:, None]
    filled = torch.where(mask, PROMPTS, 0)
    settings = SamplingSettings(length=9, top_k=4)
    found = sample(student, filled, settings, ids=IDS, seed=SEED, teacher=teacher, prompt_mask=mask)
    for row, length in enumerate(lengths):
        tokens, proposals, _ = loop(student, teacher, PROMPTS[row, 4 - length :].tolist(), int(IDS[row]), 9, 4)
        assert found.tokens[row].tolist() == tokens
        assert found.proposed[row].tolist() == proposals


def test_a_sequence_ends_with_its_end_token(make: Make) -> None:
    student, teacher, end = make(0), make(1), 3
    whole, found = run(student, teacher, top_k=4), run(student, teacher, top_k=4, end=end)
    ended = 0
    for full, tokens, mask in zip(whole.tokens.tolist(), found.tokens.tolist(), found.mask.tolist(), strict=True):
        stop = full.index(end) + 1 if end in full else len(full)
        assert tokens == full[:stop] + [end] * (len(full) - stop)
        assert mask == [True] * stop + [False] * (len(full) - stop)
        ended += stop < len(full)
    assert 0 < ended < len(IDS)
    assert found.acceptance == pytest.approx(float(whole.accepted[found.mask].double().mean()))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_frequencies_are_the_exact_probabilities(make: Make, k: int) -> None:
    """P(y1 y2) by enumeration: an accepted proposal, or the mass of refused ones times the teacher's."""
    student, teacher, count, prompt = make(0, 5), make(1, 5), 4000, [2, 0]

    def exact(before: list[int]) -> np.ndarray:
        p_s, p_t = probabilities(student, before), probabilities(teacher, before)
        stays = np.isin(np.arange(5), np.argsort(-p_t)[:k])
        return p_s * stays + p_s[~stays].sum() * p_t

    found = sample(
        student,
        torch.tensor([prompt]).expand(count, -1),
        SamplingSettings(length=2, top_k=k),
        ids=torch.arange(count),
        seed=1,
        teacher=teacher,
    )
    pairs = list(itertools.product(range(5), repeat=2))
    expected = np.array([exact(prompt)[a] * exact([*prompt, a])[b] for a, b in pairs])
    assert expected.sum() == pytest.approx(1)
    observed = np.bincount((found.tokens[:, 0] * 5 + found.tokens[:, 1]).numpy(), minlength=25)
    often = expected * count > 5
    sums = [np.append(row[often], row[~often].sum() + 1e-9) for row in (observed, expected * count)]
    assert stats.chisquare(*sums).pvalue > 0.01
    proposals = np.bincount(found.proposed[:, 0].numpy(), minlength=5)
    assert stats.chisquare(proposals, probabilities(student, prompt) * count).pvalue > 0.01


def test_draw_is_the_inverse_of_the_distribution_function() -> None:
    torch_rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 7, generator=torch_rng)
    uniform = torch.rand(50, generator=torch_rng, dtype=torch.float64)
    steps = torch.softmax(logits.double(), 1).cumsum(1).numpy()
    expected = [int(np.searchsorted(row, u, side="right")) for row, u in zip(steps, uniform.numpy(), strict=True)]
    assert draw(logits, uniform).tolist() == expected


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.5, 3), (1 - 2.0**-53, 3)])
def test_draw_never_gives_an_impossible_token(uniform: float, token: int) -> None:
    low = float("-inf")
    logits: Tensor = torch.tensor([[low, 0.0, low, 0.0, low]])
    assert draw(logits, torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


def test_among_the_best_are_k_tokens() -> None:
    logits = torch.tensor([[0.1, 2.0, -1.0, 0.5]]).expand(4, -1)
    for k in range(5):
        assert among_best(logits, torch.arange(4), k).tolist() == [rank < k for rank in (2, 0, 3, 1)]
