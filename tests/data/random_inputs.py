"""Random inputs for readers: how the tests of any input run, and the texts, values and bytes that they try."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgankd.core.errors import UserError

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
FEW = settings(
    max_examples=10**9 if SECONDS else 15,
    derandomize=not SECONDS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def any_input(strategy: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of (one input, an empty or shared folder); while fuzzing, it is skipped when its time is over."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        begun: list[float] = []
        homes: list[Path] = []

        @FEW
        @given(content=strategy)
        def run(content: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
            if not begun:
                begun.append(time.monotonic())
                homes.append(tmp_path_factory.mktemp("any"))
            if SECONDS and time.monotonic() - begun[0] > SECONDS:
                pytest.skip(f"nothing was found in {SECONDS:g} s")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                test(content, homes[0])

        run.__name__ = run.__qualname__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate


def read_or_refused(reader: Callable[[], Any]) -> Any:
    """What the reader returns; None where it refuses with a sentence."""
    refusal = ""
    try:
        return reader()
    except UserError as error:
        refusal = str(error)
    assert len(refusal) > 20
    return None


LETTERS = st.text(st.characters(codec="utf-8"), max_size=12)
ODD = st.sampled_from(
    ["0", "1", "-1", "007", "1.5", "1,5", "nan", "inf", "1e999", "none", "true", "~", "a/b", "..", "/etc/passwd",
     "0x_", "2024-02-31", "1:30", "=1+1", "%s", "{x}", "é", "", " ", "9" * 5000, "\x00", "\ud83d", "\udcff",
     "e\u0301"]
)  # fmt: skip
TEXTS = LETTERS | ODD
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def changed(*contents: bytes) -> st.SearchStrategy[bytes]:
    """One of the contents with a few bytes replaced, removed or added, or cut; or any bytes."""
    places = st.floats(0, 1)
    pieces = st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    edits = st.lists(st.tuples(places, st.integers(0, 8), pieces), min_size=1, max_size=5)

    def apply(content: bytes, edits: list[tuple[float, int, bytes]], cut: float) -> bytes:
        for place, length, piece in edits:
            at = int(place * len(content))
            content = content[:at] + piece + content[at + length :]
        return content[: int(cut * len(content))] if cut < 0.2 else content

    return st.builds(apply, st.sampled_from(contents), edits, places) | st.binary(max_size=200)


def rewritten(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
