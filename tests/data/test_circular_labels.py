"""data.circular: labels of any turn are read as points of one, and refused with what contradicts it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import sources
from cgankd.data.imageset import Splits
from cgankd.tasks import CircularRegression


def load(path: Path, labels: np.ndarray, **settings: object) -> Splits:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(labels), 16, 16), dtype=np.uint8)
    np.savez(path / "set.npz", images=images, labels=labels)
    return sources.load(DataSettings.model_validate({"source": str(path / "set.npz"), **settings}))


def all_labels(splits: Splits) -> list[float]:
    return sorted(float(label) for part in (splits.train, splits.val, splits.test) for label in part.labels)


def test_labels_of_other_turns_become_points_of_the_first(tmp_path: Path) -> None:
    splits = load(tmp_path, np.linspace(-180.0, 360.0, 109), circular=360.0, unit="degrees")
    assert splits.task == CircularRegression(high=360.0, unit="degrees")
    assert all_labels(splits) == sorted(5.0 * k % 360.0 for k in range(-36, 73))
    assert max(all_labels(splits)) < 360
    assert "labels were read as scalars that wrap at 360 (decimals)" in splits.notes
    assert "37 labels outside 0 to 360 became the same point of the circle inside it" in splits.notes


def test_whole_numbers_are_angles_where_a_period_is_given(tmp_path: Path) -> None:
    splits = load(tmp_path, np.arange(72) * 5, circular=360)
    assert isinstance(splits.task, CircularRegression)
    assert len(set(all_labels(splits))) == 72
    assert not any("outside" in note for note in splits.notes)


def test_a_label_just_below_zero_is_zero(tmp_path: Path) -> None:
    labels = np.linspace(0.0, 2 * math.pi, 40)
    labels[0] = -1e-13
    splits = load(tmp_path, labels, circular=2 * math.pi)
    assert min(all_labels(splits)) >= 0.0
    assert max(all_labels(splits)) < 2 * math.pi


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "classification"}, "data.circular=360 and data.task=classification are both set"),
        ({"label_range": [0, 360]}, "data.circular=360 and data.label_range are both set"),
    ],
)
def test_what_contradicts_a_period_is_refused(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, np.linspace(0, 350, 60), circular=360, **settings)


def test_a_named_set_keeps_its_own_task() -> None:
    with pytest.raises(UserError, match=r"data.circular can't change that"):
        sources.load(DataSettings(source="digits", circular=360))
