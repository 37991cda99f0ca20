"""The time of a network, by a clock of the test's own."""

from __future__ import annotations

import time

import pytest

from cgankd.metrics import cost


def test_the_time_of_a_call_is_that_of_the_fastest_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    took, now = iter([0.001, 0.009, 0.002, 0.008]), 0.0  # the first call only warms up; load slows two of the others

    def call() -> None:
        nonlocal now
        now += next(took)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert cost.fastest_ms(call) == pytest.approx(2.0)
