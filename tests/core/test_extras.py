from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cgankd.core import extras


def test_a_package_that_is_there_but_broken_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('made for\\nanother version')")
    monkeypatch.syspath_prepend(tmp_path)
    wanted = (
        r"^this needs broken_library, which can't be imported \(RuntimeError: made for another version\): "
        r"pip install 'cgankd\[hub\]'$"
    )
    with pytest.raises(extras.MissingPackage, match=wanted):
        extras.opened("broken_library", "this", "hub")


def test_an_absent_package_and_an_absent_module_of_it_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("absent", "absent.part"):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(extras.MissingPackage, match=r"^this needs absent: pip install 'cgankd\[hub\]'$"):
            extras.opened(module, "this", "hub")
