"""The sparse auto-encoder: its loss by hand, its code as the ratio's feature, and training that goes on exactly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.config.settings import AugmentSettings
from cgankd.core.store import Work
from cgankd.nets import zoo
from cgankd.nets.feature_extractor import FeatureExtractor
from cgankd.synthesis import autoencoder
from cgankd.synthesis.autoencoder import CODE, SparseAutoencoder, autoencoder_loss, train_autoencoder
from cgankd.tasks import Classification, Regression
from waits import Waits, Watched, accelerated
from works import stopped_at_every_save

CLASSES, DEGREES = Classification(("a", "b", "c")), Regression(0.0, 1.0)
VIEWS = AugmentSettings(shift=0, views=0)


def network(outputs: int, size: tuple[int, int] = (16, 16), seed: int = 0) -> SparseAutoencoder:
    torch.manual_seed(seed)
    return SparseAutoencoder(zoo.create("cnn8", 1, CODE, size), 1, size, outputs, width=4)


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
def test_loss_by_hand(task) -> None:
    rng = np.random.default_rng(0)
    images, decoded, code = rng.random((4, 1, 3, 3)), rng.random((4, 1, 3, 3)), rng.random((4, 5))
    outputs = rng.normal(size=(4, task.num_outputs))
    if task is CLASSES:
        y = np.array([0, 2, 1, 1])
        label = -np.mean([outputs[i, y[i]] - np.log(np.exp(outputs[i]).sum()) for i in range(4)])
    else:
        y = rng.random(4)
        label = np.mean((outputs[:, 0] - y) ** 2)
    expected = np.mean((images - decoded) ** 2) + 1e-3 * np.abs(code).mean() + label
    found = autoencoder_loss(task, *map(torch.from_numpy, (images, decoded, code, outputs, y)))
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (18, 21)])
def test_shapes_and_that_the_code_is_the_penultimate_layer(size: tuple[int, int], fabric: Fabric) -> None:
    made = network(3, size).eval()
    images = torch.randint(0, 256, (5, 1, *size), dtype=torch.uint8)
    x = images.float() / 255
    with torch.no_grad():
        code = made.code(x)
        assert made.decode(code).shape == x.shape
    assert code.shape == (5, CODE)
    assert float(code.min()) == 0.0  # ReLU
    with FeatureExtractor(zoo.create("cnn8", 1, 3, size), fabric, made) as extractor:
        assert torch.allclose(extractor(images)[1], code, atol=1e-5)


def test_training_lowers_each_term(noise, fabric: Fabric) -> None:
    images = noise(48, scalar=True)
    flat = (images.labels[:, None, None, None] * 255).expand(48, 1, 16, 16).to(torch.uint8)  # the label is the grey
    images = type(images)(flat.contiguous(), images.labels)
    made = network(1)
    x, y = flat.float() / 255, images.labels

    def terms() -> tuple[float, float]:
        made.eval()
        with torch.no_grad():
            code = made.code(x)
            decoded = (made.decode(code) - x).square().mean()
            return float(decoded), float((made.branch(code).squeeze(1) - y).square().mean())

    before = terms()
    history = train_autoencoder(Work(fabric), made, DEGREES, images, 60, 16, VIEWS, seed=0)
    after = terms()
    assert after[0] < 0.3 * before[0]
    assert after[1] < 0.3 * before[1]
    assert history[-1]["step"] == 60
    assert not made.training


def test_a_killed_loop_goes_on_exactly(noise, fabric: Fabric, tmp_path: Path) -> None:
    images = noise(24)

    def trained(work: Work) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        made = network(3)
        history = train_autoencoder(work, made, CLASSES, images, 6, 16, VIEWS, seed=0)
        return made.state_dict(), history

    whole, history = trained(Work(fabric))
    (parts, resumed), calls = stopped_at_every_save(fabric, tmp_path, trained)
    assert calls == 7
    assert resumed == history
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_no_step_waits_for_the_device(noise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "LOG_POINTS", 1)
    with Waits() as mode:
        progress = Watched(mode)
        train_autoencoder(Work(accelerated(), progress), network(3), CLASSES, noise(24), 3, 16, VIEWS, seed=0)
    assert [len(seen) for seen in progress.loops] == [3]
    assert progress.after(1) == Counter()
