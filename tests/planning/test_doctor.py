"""What ``cgankd doctor`` says: facts, problems with what to do, exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from cgankd.cli import main
from cgankd.core import machine
from cgankd.planning import doctor, step_speed
from cgankd.planning.doctor import GIB, Findings, Problem


def test_a_missing_an_old_and_a_broken_package_are_needed_and_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_one.py").write_text("raise RuntimeError('libmissing.so not\\nfound')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if name == "broken-one" else real(name))
    findings = Findings()
    doctor.check_packages(findings, ["no-such-package>=2", "numpy>=1000", "broken-one>=0.5", "rich>=1"])
    numpy = findings.facts["versions"]["numpy"]
    assert findings.problems == [
        Problem("no-such-package is missing: pip install 'no-such-package>=2'", True),
        Problem(f"numpy {numpy} is not >=1000: pip install 'numpy>=1000'", True),
        Problem(
            "broken-one 1.0 can't be imported (libmissing.so not found): "
            "pip install --force-reinstall 'broken-one==1.0'",
            True,
        ),
    ]
    assert findings.facts["versions"]["no-such-package"] == "missing"
    assert not findings.usable


def test_extras_are_installed_or_say_how_to_install_them_and_are_never_needed() -> None:
    findings = Findings()
    needs = ['numpy>=1; extra == "a"', 'no-such-package; extra == "b"', 'numpy; extra == "b"', 'x; extra == "dev"']
    doctor.check_packages(findings, needs)
    assert findings.facts == {"extras": {"a": "installed", "b": "pip install 'cgankd[b]'"}}
    assert findings.usable


def test_more_threads_than_cores_are_a_problem_with_the_number_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "core_limit", lambda: 2.5)
    findings = Findings()
    doctor.check_processor(findings)
    assert (findings.facts["processor"]["cores"], findings.facts["processor"]["core_limit"]) == (8, 2.5)
    assert [problem.needed for problem in findings.problems] == [False]
    assert "set runtime.threads=2, or OMP_NUM_THREADS=2" in findings.problems[0].text


def test_little_memory_is_a_problem_and_unknown_memory_is_not() -> None:
    findings = Findings()
    doctor.check_memory(findings, None, None)
    assert findings.problems == []
    doctor.check_memory(findings, 8 * GIB, GIB)
    assert findings.facts["memory"] == {"total_gib": 8.0, "free_gib": 1.0}
    assert findings.problems[0].text.startswith("only 1.0 GiB of memory are free: ")


def test_a_folder_that_cannot_be_written_is_needed_for_runs_and_not_for_public_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "sets" / "here"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for locked, needed in ((tmp_path, False), (tmp_path / "work", True)):
        monkeypatch.setattr(doctor, "_can_write", lambda folder, locked=locked: folder != locked)
        findings = Findings()
        doctor.check_folders(findings)
        assert [problem.needed for problem in findings.problems] == [needed]
        assert findings.problems[0].text.startswith(f"{locked} can't be written to, where ")


def test_a_precision_that_auto_chooses_and_that_is_slower_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    speeds = {"fp32 contiguous": 10.0, "fp32 channels_last": 12.0, "bf16 contiguous": 4.0, "bf16 channels_last": 6.0}
    findings = Findings()
    doctor.check_speed(findings, 0.0, lambda device, seconds: speeds)
    assert "bf16 here, but fp32 is 2.0 times as fast: set runtime.precision=fp32" in findings.problems[0].text
    speeds = {**speeds, "bf16 channels_last": 11.0}
    findings = Findings()
    doctor.check_speed(findings, 0.0, lambda device, seconds: speeds)
    assert findings.problems == []


def test_each_speed_is_measured_and_positive() -> None:
    speeds = step_speed.steps_per_second("cpu", seconds=0.0)
    assert list(speeds) == ["fp32 contiguous", "fp32 channels_last", "bf16 contiguous", "bf16 channels_last"]
    assert all(speed > 0 for speed in speeds.values())


@pytest.mark.parametrize(("needed", "code", "ending"), [(True, 1, "runs do not work here"), (False, 0, "runs work")])
def test_the_command_prints_problems_and_its_exit_code_says_whether_runs_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, needed: bool, code: int, ending: str
) -> None:
    def examine() -> Findings:
        return Findings({"memory": {"free_gib": 1.5}}, [Problem("little memory: buy more", needed)])

    monkeypatch.setattr(doctor, "examine", examine)
    for words in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["cgankd", "doctor", *words])
        with pytest.raises(SystemExit) as stop:
            main.main()
        assert stop.value.code == code
        out = capsys.readouterr().out
        if words:
            problems = [{"text": "little memory: buy more", "needed": needed}]
            assert json.loads(out) == {"usable": not needed, "memory": {"free_gib": 1.5}, "problems": problems}
        else:
            assert f"{'!' if needed else '-'} little memory: buy more" in out
            assert ending in out
