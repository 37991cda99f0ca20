"""A finished run that is started again: the same is printed, without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from commands import Said

FINISHED = "out is finished, and nothing that it depends on has changed"
# with None in its place, torch can't be imported
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from cgankd.cli.main import main; main()"


def test_the_same_is_printed_without_torch_until_something_changes(
    finished: tuple[Path, Said], tiny: Path, typed: Callable[..., Said]
) -> None:
    out = tiny.parent / "out"
    shutil.copytree(finished[0], out)
    words = ["run", "tiny.yaml", "compare.ablation=true", "--out", "out"]
    first = typed(*words)  # all stages are looked up, because copies are other files
    assert FINISHED not in first.out
    second = typed(*words)
    assert second.code == 0, second.err
    assert second.out.splitlines()[0] == FINISHED
    assert second.out.splitlines()[1:] == first.out.splitlines()[1:]

    command = [sys.executable, "-c", WITHOUT_TORCH, *words, "--quiet"]
    third = subprocess.run(command, cwd=tiny.parent, capture_output=True, text=True, check=True)
    assert third.stdout.split() == " ".join(first.out.splitlines()[1:]).split()  # the console has another width

    for other in (["--no-report"], ["--json"]):
        assert FINISHED not in typed(*words, *other).out
