"""What the shell completes, and that asking for it imports no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgankd.cli import completion, main
from cgankd.distill import METHODS
from cgankd.nets.registry import BUILDERS


def test_the_names_read_from_the_sources_are_those_that_are_registered() -> None:
    assert completion.methods() == sorted(METHODS)
    shipped = sorted(name for name, builder in BUILDERS.items() if builder.func.__module__.startswith("cgankd."))
    assert completion.networks() == shipped


def test_only_the_last_name_of_a_list_is_completed() -> None:
    assert completion.method_lists("dkd,kd+pk") == ["dkd,kd+pkt"]
    assert completion.network_lists("cnn16,resnet8") == ["cnn16,resnet8", "cnn16,resnet8x4"]
    assert completion.network_lists("no_such") == []


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (["run", "rotated"], ["rotated-fashion", "rotated-fashion-demo", "rotated-fashion-equal"]),
        (["show", "pyd"], ["pydoc"]),
        (["continual", "continual-f"], ["continual-fashion"]),
        (["methods", "rk"], ["rkd"]),
        (["table", "digits", "--students", "vgg8"], ["vgg8"]),
        (["convert-weights", "a.pth", "b.safetensors", "--network", "wrn_4"], ["wrn_40_1", "wrn_40_2"]),
        (["doct"], ["doctor"]),
    ],
)
def test_bash_gets_the_names_that_fit_what_was_typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: list[str], wanted: list[str]
) -> None:
    monkeypatch.setenv("_CGANKD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(["cgankd", *typed]))
    monkeypatch.setenv("COMP_CWORD", str(len(typed)))
    monkeypatch.setattr(sys, "argv", ["cgankd"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 0
    assert capsys.readouterr().out.split() == wanted


def test_completing_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['cgankd']\nfrom cgankd.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    words = {"_CGANKD_COMPLETE": "complete_bash", "COMP_WORDS": "cgankd\nmethods\nrk", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **words},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["rkd", "[]"]
