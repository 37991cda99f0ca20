"""One run on several processes: what it prints and keeps, how it ends if one of them is killed, what is refused."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Said, copied, environment, process, script

SHORT = ["compare.methods=[nokd]", "metrics.generator=false", "teacher.fit.steps=8", "--no-report", "--no-export"]


def test_two_processes_speak_and_write_as_one(tiny: Path, typed: Callable[..., Said]) -> None:
    said = process("run", tiny, *SHORT, "--out", "two", "--devices", 2, "--json", cwd=tiny.parent)
    assert (said.code, said.err) == (0, "")
    events = [json.loads(line) for line in said.out.splitlines()]
    stages = [event["kind"] for event in events if event["event"] == "stage_started"]
    assert stages == [
        "describe_data", "train_network", "score_teacher", "train_student", "score_student", "find_worst_answers",
    ]  # fmt: skip
    assert [event["event"] for event in events].count("done") == 1
    assert json.loads((tiny.parent / "two" / "status.json").read_text())["state"] == "done"

    assert typed("run", tiny, *SHORT, "--out", "one", "--quiet").code == 0
    one, two = (tiny.parent / name for name in ("one", "two"))
    keys = [sorted(path.name for path in (folder / "artifacts").glob("train_*")) for folder in (one, two)]
    assert keys[0] == keys[1]  # the number of processes is part of no key
    made = {
        folder.name: {json.loads(path.read_text())["made_with"]["processes"] for path in folder.rglob("artifact.json")}
        for folder in (one, two)
    }
    assert made == {"one": {1}, "two": {2}}
    losses = [
        json.loads((folder / "artifacts" / keys[0][0] / "artifact.json").read_text())["summary"]["history"][-1]["loss"]
        for folder in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("killed", "stage", "saved", "words"),
    [
        (2, "train_network", 0, ["teacher.fit.steps=5000"]),  # computed by both
        (2, "train_generator", 0, ["generator.steps=20000", "compare.methods=[cgan]"]),  # also by both
        (2, "train_density_ratio", 1, ["ratio.steps=20000", "compare.methods=[cgan]"]),  # trained by the first alone
        (2, "make_images", 1, ["synthesis.images=99999", "compare.methods=[cgan]", "runtime.checkpoint_seconds=0.1"]),
        (1, "train_network", 0, ["teacher.fit.steps=5000"]),
        (1, "train_density_ratio", 0, ["ratio.steps=20000", "compare.methods=[cgan]"]),  # while the second one waits
    ],
)
def test_where_one_is_killed_the_other_stops_with_a_sentence(
    killed: int, stage: str, saved: int, words: list[str], tiny: Path
) -> None:
    words = ["run", "tiny.yaml", *words, "--out", "out", "--devices", "2", "--quiet"]
    folder = tiny.parent / "out" / "work"
    with subprocess.Popen([script(), *words], cwd=tiny.parent, env=environment(), stderr=subprocess.PIPE) as run:
        while not list(folder.glob(f"{stage}-*")):
            assert run.poll() is None
            time.sleep(0.05)
        time.sleep(1.0)
        (other,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        os.kill((run.pid, int(other))[killed - 1], signal.SIGKILL)
        said = run.communicate(timeout=60)[1].decode().splitlines()  # until both have closed their stderr
    assert run.returncode == (-signal.SIGKILL if killed == 1 else 1)
    assert len(said) == 1
    words_of_it = f"process {3 - killed} of 2 stopped, because another one has ended or can't be reached ("
    assert said[0].startswith(f"cgankd: {words_of_it}")
    assert said[0].endswith(f"); the same command goes on: cgankd {shlex.join(words)}")
    assert len(list(folder.glob(f"{stage}-*/checkpoint.safetensors"))) == saved


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["run", "tiny.yaml", "--devices", "100"],
            "teacher.fit.batch_size = 64, but 100 processes share each batch; needed: at least 100, or fewer processes "
            "(runtime.devices, runtime.nodes)",
        ),
        (
            ["run", "tiny.yaml", "--devices", "17"],
            "generator.batch_size = 16, but 17 processes share each batch; needed: at least 17, or fewer processes "
            "(runtime.devices, runtime.nodes)",
        ),
        (
            ["table", "tiny.yaml", "runtime.devices=2", "--out", "out"],
            "tiny, cnn8: runtime.devices = 2 and runtime.nodes = 1 are for cgankd run; allowed here: 1 and 1",
        ),
        (
            ["synthesize", "tiny.yaml", "runtime.nodes=2", "--export", "out"],
            "runtime.devices = 1 and runtime.nodes = 2 are for cgankd run; allowed here: 1 and 1",
        ),
        (
            ["run", "tiny.yaml", "--strategy", "fsdp"],
            "runtime.strategy = fsdp divides a teacher's weights among several processes, but runtime.devices = 1 and "
            "runtime.nodes = 1; allowed with it: runtime.strategy = ddp",
        ),
        (
            ["run", "tiny.yaml", "--devices", "2", "--strategy", "fspd"],
            "tiny.yaml: runtime.strategy = 'fspd' is not allowed (did you mean 'fsdp'?); allowed: ddp, fsdp",
        ),
        (
            ["run", ".", "--devices", "2"],
            "several devices are for a recipe, but . is images; cgankd init . writes one",
        ),
    ],
)
def test_what_several_processes_cant_do_is_refused_before_any_is_started(
    words: list[str], sentence: str, tiny: Path, typed: Callable[..., Said]
) -> None:
    assert typed(*words).sentence() == f"cgankd: {sentence}"


def test_machines_that_cant_meet_are_told_what_is_needed(
    tiny: Path, typed: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "tiny.yaml", "--num-nodes", "2", "--out", "out"]
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert typed(*words).sentence().startswith("cgankd: runtime.nodes = 2, but the variable MASTER_ADDR is not set; ")

    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        said = copied(*words, cwd=tiny.parent).sentence()  # in this one Fabric's variables would stay
    assert said.startswith("cgankd: the processes of this run can't reach each other (The server socket has failed to ")
    assert "MASTER_ADDR (here 127.0.0.1) that all of them reach, a free MASTER_PORT there, and GLOO_SOCKET_I" in said
    assert not (tiny.parent / "out").exists()
