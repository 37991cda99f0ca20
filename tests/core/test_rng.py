"""Counter-based random numbers: the mixing against plain Python, and the distributions they must have."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from cgankd.core import rng

MASK = (1 << 64) - 1


def splitmix64(x: int) -> int:
    """Steele, Lea and Flood's finaliser on unsigned integers, with the golden increment before it."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def reference_bits(seed: int, stream: str, *counters: int) -> int:
    name = f"{seed}:{stream}".encode()
    state = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
    for number in counters:
        state = splitmix64(state ^ splitmix64(number & MASK))
    return state


def test_splitmix64_gives_the_published_sequence() -> None:
    # The first outputs for seed 1234567 (Vigna's splitmix64.c; Rosetta Code "Pseudo-random numbers/Splitmix64").
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + step * golden) & MASK for step in range(4)]
    assert [splitmix64(state) for state in states] == published
    signed = torch.tensor([state - (1 << 64) if state >> 63 else state for state in states])
    assert [int(value) & MASK for value in rng._mix_on_device(signed)] == published
    assert rng._mix(np.array(states, dtype=np.uint64)).tolist() == published


@pytest.mark.parametrize("counters", [(0,), (1, 2), (-5, 2**40, 7), (2**63 - 1, -(2**63))])
def test_bits_equal_the_unsigned_reference(counters: tuple[int, ...]) -> None:
    found = rng.bits(3, "view", *(torch.tensor(number) for number in counters))
    assert int(found) & MASK == reference_bits(3, "view", *counters)


def test_other_devices_give_the_bits_of_the_cpu() -> None:
    counters = torch.arange(-3, 40)[:, None], torch.tensor([0, 2**62, -(2**63)])
    expected = rng.bits(5, "view", *counters)
    state = torch.full((), rng.key(5, "view"), dtype=torch.int64)
    for counter in counters:
        state = rng._mix_on_device(state ^ rng._mix_on_device(counter))
    assert torch.equal(expected, state)
    assert expected.shape == (43, 3)


def test_uniform_is_the_top_53_bits() -> None:
    found = rng.uniform(9, "accept", torch.arange(100), torch.tensor(4))
    expected = [(reference_bits(9, "accept", number, 4) >> 11) / 2**53 for number in range(100)]
    assert found.dtype == torch.float64
    assert found.tolist() == expected


def test_key_is_the_signed_hash_of_its_parts() -> None:
    digest = hashlib.blake2b(b"7:gan:3:4", digest_size=8).digest()
    assert rng.key(7, "gan", 3, 4) == int.from_bytes(digest, "little", signed=True)
    names = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 1)]
    assert len({rng.key(*name) for name in names}) == len(names)


@pytest.mark.parametrize("seed", [0, 1, -1])
def test_uniform_is_uniform(seed: int) -> None:
    draws = rng.uniform(seed, "accept", torch.arange(200)[:, None], torch.arange(500)).flatten().numpy()
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert draws.min() >= 0
    assert draws.max() < 1


def test_streams_seeds_and_counters_are_independent() -> None:
    step = torch.arange(20_000)
    zero = torch.zeros_like(step)
    rows = [
        rng.uniform(0, "a", step, zero),
        rng.uniform(0, "b", step, zero),
        rng.uniform(1, "a", step, zero),
        rng.uniform(0, "a", step, zero + 1),
        rng.uniform(0, "a", zero, step),
        rng.uniform(0, "a", step + 1, zero),  # the first row, one counter later
        rng.uniform(0, "a", 2 * step, zero),
        rng.uniform(0, "a", step * 2**32, zero),
    ]
    correlation = np.corrcoef(torch.stack(rows).numpy()) - np.eye(len(rows))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(step))  # 28 pairs, each of standard error 1 / sqrt(n)


def test_a_value_is_the_same_in_a_batch_and_alone() -> None:
    a, b = torch.arange(6), torch.arange(11, 15)
    table = rng.normal(2, "latent", a[:, None], b, width=5)
    alone = torch.stack([torch.stack([rng.normal(2, "latent", i, j, width=5) for j in b]) for i in a])
    assert table.shape == (6, 4, 5)
    assert torch.equal(table, alone)
    order = torch.tensor([3, 0, 5])
    assert torch.equal(rng.uniform(2, "s", order), rng.uniform(2, "s", a)[order])


@pytest.mark.parametrize("width", [1, 7, 8])
def test_normal_is_standard_normal(width: int) -> None:
    draws = rng.normal(4, "latent", torch.arange(20_000), width=width).double().numpy()
    assert draws.shape == (20_000, width)
    pooled = draws.ravel()
    assert stats.kstest(pooled, "norm").pvalue > 1e-3
    count = len(pooled)
    assert abs(pooled.mean()) < 4 / np.sqrt(count)
    assert abs(pooled.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs((pooled**4).mean() - 3) < 4 * np.sqrt(96 / count)  # Var(z^4) = 105 - 9
    if width > 1:
        off = np.corrcoef(draws.T) - np.eye(width)
        assert np.abs(off).max() < 4.5 / np.sqrt(len(draws))
        squares = np.corrcoef((draws**2).T) - np.eye(width)  # Box-Muller's pairs share a radius
        assert np.abs(squares).max() < 4.5 / np.sqrt(len(draws))


@pytest.mark.parametrize("high", [2, 5, 7])
def test_integers_are_even_over_their_range(high: int) -> None:
    draws = rng.integers(high, 0, "view/down", torch.arange(50_000))
    counts = torch.bincount(draws, minlength=high)
    assert len(counts) == high
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_an_order_is_that_of_each_rows_bits() -> None:
    signed = [int(rng.bits(3, "rows", torch.tensor(2), torch.tensor(row))) for row in range(9)]
    assert rng.order(9, 3, "rows", 2).tolist() == sorted(range(9), key=signed.__getitem__)


def test_scalars_count_by_their_bits() -> None:
    assert rng.label_counters(torch.tensor([7, 0])).tolist() == [7, 0]
    assert rng.label_counters(torch.tensor([1.0, 0.0])).tolist() == [0x3F800000, 0]  # IEEE 754 single precision


def test_generator_repeats_by_its_name() -> None:
    first = torch.rand(4, generator=rng.generator("cpu", 0, "order", 1, 2))
    assert torch.equal(first, torch.rand(4, generator=rng.generator("cpu", 0, "order", 1, 2)))
    for other in [(1, "order", 1, 2), (0, "other", 1, 2), (0, "order", 2, 1)]:
        assert not torch.equal(first, torch.rand(4, generator=rng.generator("cpu", *other)))


def test_the_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with rng.seeded(5, "weights"):
        drawn = torch.rand(5)
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(rng.key(5, "weights"))
    assert torch.equal(torch.rand(5), drawn)


def test_no_counter_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one counter"):
        rng.bits(0, "a")


def test_seeds_draw_what_manual_seed_draws_and_queue_no_calls() -> None:
    torch.manual_seed(-7)
    expected = torch.rand(3)
    queued = len(torch.cuda._queued_calls)
    rng.seed_torch(-7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
    with rng.seeded(5, "weights"):
        pass
    assert len(torch.cuda._queued_calls) == queued  # so the state of GPUs stays the caller's
