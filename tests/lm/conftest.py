"""Small random models whose distributions are far from even, and a corpus of random tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cgankd.lm import models
from cgankd.lm.settings import ModelSettings
from cgankd.lm.text import Corpus

Make = Callable[..., nn.Module]


@pytest.fixture(scope="session")
def make() -> Make:
    """make(seed, vocabulary=.., architecture=..) -> a causal model in eval mode."""

    def make(
        seed: int, vocabulary: int = 12, architecture: str = "llama", window: int = 32, sharp: float = 8.0
    ) -> nn.Module:
        settings = ModelSettings.model_validate({"architecture": architecture, "width": 16, "layers": 2, "heads": 2})
        model = models.create(settings, vocabulary, vocabulary - 1, window, seed)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 2:
                    weight.mul_(sharp)
        return model.eval()

    return make


@pytest.fixture
def corpus() -> Corpus:
    rng = torch.Generator().manual_seed(3)
    rows = {name: torch.randint(0, 12, (count,), generator=rng) for name, count in
            {"train": 200, "val": 40, "test": 50}.items()}  # fmt: skip
    return Corpus(rows, vocabulary=12, end=11, sizes={"train": 600, "val": 120, "test": 150})
