"""One half of the validation images chooses the density ratio's weights; the checks and the bound see the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_run_road import tiny

from cgankd.core.store import Store
from cgankd.pipeline import measurements, stages
from cgankd.pipeline.run import opened
from cgankd.pipeline.stages import generator
from cgankd.synthesis import checks


def test_halves_are_disjoint_cover_all_and_follow_the_seed() -> None:
    first, second = checks.halves(11, seed=3)
    assert sorted(torch.cat([first, second]).tolist()) == list(range(11))
    assert (len(first), len(second)) == (5, 6)
    assert not torch.equal(first, checks.halves(11, seed=4)[0])


def test_weights_are_chosen_by_one_half_and_checked_on_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    train, check = generator.train_ratio, checks.check

    def watched_training(*args: Any, **more: Any) -> Any:
        seen["chosen by"] = more["held_out"].real
        return train(*args, **more)

    def watched_check(h_real: Any, *args: Any) -> Any:
        seen["checked on"] = len(h_real)
        return check(h_real, *args)

    monkeypatch.setattr(generator, "train_ratio", watched_training)
    monkeypatch.setattr(checks, "check", watched_check)
    with opened(tiny("data.val_size=20"), tmp_path) as road:
        road.ratio(0)
        first, second = checks.halves(20, seed=0)
        with road.extractor(0, with_outputs=False).open(road.store.fabric) as extractor:
            features = extractor(road.splits.val.images)[1]
        assert torch.allclose(seen["chosen by"], features[first], atol=1e-5)
        assert seen["checked on"] == len(second) == 10


@pytest.mark.parametrize(("words", "size"), [([], 10), (["synthesis.subsampling=none"], 20), (["search=true"], None)])
def test_the_bound_sees_images_that_chose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], size: int | None
) -> None:
    given: dict[str, Any] = {}
    call = Store.call

    def watched(store: Store, function: Any, **arguments: Any) -> Any:
        if function is stages.measure_generator:
            given.update(arguments)
            raise InterruptedError
        return call(store, function, **arguments)

    monkeypatch.setattr(Store, "call", watched)
    with opened(tiny("data.val_size=20", *words), tmp_path) as road:
        with pytest.raises(InterruptedError):
            measurements.quality(road, 0)
        unused = given["real"].unused
        assert (None if unused is None else len(unused)) == size
        if size == 10:
            expected = road.splits.val.take(checks.halves(20, seed=0)[1])
            assert torch.equal(unused.images, expected.images)
