"""One process computes a shared artifact; the others wait for it, and take over where it dies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgankd.core.lease import leased

HOLDER = """
import sys, time
from pathlib import Path
from cgankd.core.lease import leased
with leased(Path(sys.argv[1]), lambda seconds: None, lambda: False):
    print("held", flush=True)
    time.sleep(60)
"""


class Waited(Exception):
    pass


def test_the_file_goes_only_where_the_artifact_is_there(tmp_path: Path) -> None:
    path = tmp_path / "leases" / "x"
    for there in (False, True):
        with leased(path, lambda seconds: pytest.fail("nobody holds it"), lambda there=there: there):
            assert path.is_file()
        assert path.is_file() is not there


def test_it_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), leased(tmp_path / "x", lambda seconds: None, lambda: True):
        1 / 0  # noqa: B018
    with leased(tmp_path / "x", lambda seconds: pytest.fail("nobody holds it"), lambda: True):
        pass


def test_another_one_waits_until_the_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waits: list[float] = []

        def stop(seconds: float) -> None:
            raise Waited

        def kill(seconds: float) -> None:
            waits.append(seconds)
            holder.kill()

        with pytest.raises(Waited), leased(path, stop, lambda: True):
            pytest.fail("somebody holds it")
        begun = time.monotonic()
        with leased(path, kill, lambda: True):
            assert waits[0] == 0.0
            assert time.monotonic() - begun < 30
    assert not path.exists()
