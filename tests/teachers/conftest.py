"""A module with teachers that only answer, which a recipe can name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from asked import write_module


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """module(outputs) -> the name of a module in ``tmp_path`` with the functions of asked.MODULE."""

    def make(outputs: int) -> str:
        name = f"asked_for_{outputs}"
        write_module(tmp_path, name, outputs)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make
