"""What tests of more than one folder share: one CPU device at full precision, and images of random pixels."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # pytest's first process starts the others after this file, and would import torch for seconds
    from lightning_fabric import Fabric

    from cgankd.data.imageset import ImageSet

    Noise = Callable[..., ImageSet]


def pytest_collection_finish() -> None:
    """What is there before the first test stays to the end, so Python need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_waiting() -> Iterator[None]:
    """What takes milliseconds, thousands of times, and changes no result, is left out.

    - Nothing waits for the disk: no test cuts the power, so what a killed process has written is there.
    - No Fabric looks for callbacks among all installed packages.
    - No missing device is seeded: ``torch.manual_seed`` writes down the whole stack for each.
    - typer reads the signatures of all commands once.
    - The latency of a network, for each of hundreds, is that of three calls.
    """
    import torch
    import typer.main

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("lightning_fabric.fabric._load_external_callbacks", lambda group: [], raising=False)
        for device in () if torch.cuda.is_available() else ("cuda", "mtia", "xpu"):
            patch.setattr(f"torch.{device}.manual_seed_all", lambda seed: None, raising=False)
        patch.setattr("cgankd.metrics.cost.WARM_UP", 1)
        patch.setattr("cgankd.metrics.cost.REPEATS", 3)
        patch.setattr("typer.main.get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture(scope="session")
def noise() -> Noise:
    """noise(count, classes=.., or scalar=True, channels=.., size=.., seed=..) -> images of random pixels."""
    import torch

    from cgankd.data.imageset import ImageSet

    def make(
        count: int,
        *,
        classes: int = 3,
        scalar: bool = False,
        channels: int = 1,
        size: tuple[int, int] = (16, 16),
        seed: int = 0,
    ) -> ImageSet:
        rng = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (count, channels, *size), generator=rng, dtype=torch.uint8)
        labels = torch.rand(count, generator=rng) if scalar else torch.arange(count) % classes
        return ImageSet(images, labels)

    return make


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """module(outputs) -> the name of a module in ``tmp_path`` with the functions of answering_teachers.MODULE."""
    from answering_teachers import write_module

    def make(outputs: int) -> str:
        name = f"teacher_of_{outputs}"
        write_module(tmp_path, name, outputs)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make
