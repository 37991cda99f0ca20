"""The commands table and ablate: they share artifacts, go on after a kill, and refuse in one sentence."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import CHECKPOINT_FILE, Said, environment, kill_in, script, workers_of

SHORT = [
    "teacher.fit.steps=5",
    "generator.steps=6",
    "ratio.steps=5",
    "ratio.fakes_per_image=1",
    "synthesis.images=50",
    "metrics.generator=false",
]
STUDENTS = ["compare.methods=[nokd_longer,cgan]", "student.transfer_steps=40"]
SHARED = [
    "data", "teacher (seed 0)", "generator", "density ratio",
    "synthesis: burn-in", "synthesis: calibration", "synthesis",
]  # fmt: skip
FILES = ("table.json", "table.md", "table.csv", "table-tiny.svg")


def stages(out: Path) -> Counter[str]:
    return Counter(path.name.rsplit("-", 1)[0] for path in (out / "artifacts").iterdir())


@pytest.mark.long
@pytest.mark.xdist_group("table")
def test_a_table_killed_in_its_second_cell_ends_as_one_that_nobody_killed(
    tmp_path: Path, tiny: Path, typed: Callable[..., Said]
) -> None:
    words = ["table", tiny.name, *SHORT, *STUDENTS, "--students", "cnn8,cnn16"]
    often = [*words, "runtime.checkpoint_seconds=0.05"]
    kill_in("train_student", CHECKPOINT_FILE, 12, often, tmp_path, step=10)  # in the second cell
    killed = json.loads((tmp_path / "out" / "table.json").read_text())
    assert killed["missing"] == ["tiny, cnn16"]
    said = typed(*often, "--out", "out", "--quiet")
    assert said.code == 0, said.err
    assert said.out.startswith((tmp_path / "out" / "table.md").read_text())
    assert typed(*words, "--out", "whole", "--quiet").code == 0
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    # Two students of one setting: everything but the students is made once.
    assert stages(tmp_path / "out") == {
        "describe_data": 1,
        "train_network": 1,
        "score_teacher": 1,
        "train_generator": 1,
        "train_density_ratio": 1,
        "burn_in": 1,
        "calibrate_filter": 1,
        "make_images": 1,
        "train_student": 4,
        "score_student": 4,
        "find_worst_answers": 2,
    }
    found = json.loads((tmp_path / "out" / "table.json").read_text())
    assert found["missing"] == []
    for cell in found["tables"][0]["cells"]:
        own = json.loads((tmp_path / "out" / cell["folder"] / "results.json").read_text())
        assert [row["values"] for row in cell["rows"]] == [row["values"] for row in own["rows"]]
        shared = [own["artifacts"]["generator"], *own["artifacts"]["students"]["cgan"]]  # where a report finds them
        assert all((tmp_path / "out" / cell["folder"] / path / "artifact.json").is_file() for path in shared)

    # Other column blocks in the same folder: only the new seed's students are trained.
    words[-1] = "cnn8"
    said = typed(*words, "--settings", "seeds=[0]", "--settings", "seeds=[0, 1]", "--out", "out", "--quiet")
    assert said.code == 0, said.err
    assert stages(tmp_path / "out")["train_student"] == 6
    assert stages(tmp_path / "out")["train_generator"] == 1
    with (tmp_path / "out" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert Counter(line["setting"] for line in lines) == {"seeds=[0]": 3, "seeds=[0, 1]": 3}


@pytest.mark.long
@pytest.mark.parametrize(
    "executor",
    [
        ["--jobs", "2"],
        ["--executor", "slurm", "--resources", "cluster=local timeout_min=20"],
        ["--executor", "ray", "--resources", "num_cpus=1"],
    ],
    ids=["processes", "submitit", "ray"],
)
def test_runs_in_other_processes_end_as_those_in_one_and_a_killed_one_is_replaced(
    executor: list[str], tmp_path: Path, tiny: Path, typed: Callable[..., Said]
) -> None:
    pytest.importorskip({"slurm": "submitit", "ray": "ray"}.get(executor[1], "torch"))
    words = ["table", tiny.name, *SHORT, *STUDENTS, "--students", "cnn8,cnn16"]
    with subprocess.Popen(
        [script(), *words, *executor, "--out", "out"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as run:  # fmt: skip
        if executor[0] == "--jobs":
            while not (workers := workers_of(tmp_path / "out")):
                assert run.poll() is None
                time.sleep(0.05)
            os.kill(workers[0], signal.SIGKILL)
        lines = run.communicate(timeout=300)[0].splitlines()
    assert run.returncode == 0
    assert sum(line.endswith(": done") for line in lines) == 2
    assert sum(line.endswith("its worker died; another one goes on") for line in lines) == (executor[0] == "--jobs")
    assert typed(*words, "--out", "whole", "--quiet").code == 0
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert stages(tmp_path / "out") == stages(tmp_path / "whole")


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("scancel"), reason="no Slurm here; its nodes must see the folder of the tests")
def test_a_job_that_is_cancelled_in_slurms_queue_is_replaced(
    tmp_path: Path, tiny: Path, typed: Callable[..., Said]
) -> None:
    pytest.importorskip("submitit")
    if subprocess.run(["squeue"], capture_output=True, check=False).returncode:
        pytest.skip("Slurm does not answer here")
    words = ["table", tiny.name, *SHORT, *STUDENTS, "--students", "cnn8,cnn16"]
    slurm = ["--executor", "slurm", "--resources", "timeout_min=20 cpus_per_task=1 name=cgankd-test"]
    queue = ["squeue", "--noheader", "--format=%i", "--states=RUNNING", "--name=cgankd-test"]
    with subprocess.Popen(
        [script(), *words, *slurm, "--out", "out"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        while not (jobs := subprocess.check_output(queue, text=True).split()):
            assert run.poll() is None
            time.sleep(0.2)
        subprocess.check_call(["scancel", jobs[0]])
        lines, errors = (said.splitlines() for said in run.communicate(timeout=300))
    assert (run.returncode, errors) == (0, [])
    assert sum(line.endswith("another one goes on") for line in lines) == 1
    assert typed(*words, "--out", "whole", "--quiet").code == 0
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def begun(out: Path) -> Counter[str]:
    """How often the workers of this folder have begun each shared stage, by their logs."""
    lines = [line for log in out.glob("cells/*/log.txt") for line in log.read_text().splitlines()]
    titles = [re.sub(r"^\[\d+/\d+\] |; whole run .*", "", line) for line in lines if line.startswith("[")]
    return Counter(title for title in titles if title in SHARED)


@pytest.mark.long
@pytest.mark.parametrize("kill", [False, True], ids=["undisturbed", "killed"])
def test_what_three_runs_need_at_once_is_computed_once(kill: bool, tmp_path: Path, tiny: Path) -> None:
    words = ["table", tiny.name, *SHORT, "compare.methods=[cgan]", "student.transfer_steps=2", "generator.steps=60"]
    command = [script(), *words, "--students", "cnn8,cnn16,resnet8", "--jobs", "3", "--out", "out"]
    out = tmp_path / "out"
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as run:
        while kill and not begun(out)["generator"]:
            assert run.poll() is None
            time.sleep(0.05)
        if kill:  # the one that holds the lease; the other two wait for it
            cell = next(log.parent for log in out.glob("cells/*/log.txt") if "] generator" in log.read_text())
            os.kill(workers_of(cell)[0], signal.SIGKILL)
        run.communicate(timeout=300)
    assert run.returncode == 0
    assert begun(out) == {title: 2 if kill and title == "generator" else 1 for title in SHARED}
    assert list((out / "leases").iterdir()) == list((out / "work").iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize(("kind", "resources"), [("slurm", "cluster=local timeout_min=20"), ("ray", "num_cpus=1")])
def test_sigterm_makes_workers_of_an_executor_save_and_stop(
    kind: str, resources: str, tmp_path: Path, tiny: Path
) -> None:
    pytest.importorskip({"slurm": "submitit", "ray": "ray"}[kind])
    words = ["table", tiny.name, *SHORT, "compare.methods=[nokd_longer]", "student.transfer_steps=20000"]
    command = [script(), *words, "--students", "cnn8", "--executor", kind, "--resources", resources, "--out", "out"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as run:
        while not list(tmp_path.glob("out/work/train_student-*")):
            assert run.poll() is None
            time.sleep(0.05)
        run.terminate()
        said = run.communicate(timeout=120)[1]
    assert run.returncode == 75, said
    assert "stopped, because it was asked to stop (SIGTERM); the same command goes on" in said
    assert len(list(tmp_path.glob(f"out/work/train_student-*/{CHECKPOINT_FILE}"))) == 1
    (outcome,) = tmp_path.glob("out/cells/*/outcome.json")
    assert json.loads(outcome.read_text())["state"] == "stopped"


@pytest.mark.xdist_group("table")
@pytest.mark.long
def test_an_ablation_shares_all_but_synthesis_and_students(
    tmp_path: Path, tiny: Path, typed: Callable[..., Said]
) -> None:
    words = ["ablate", tiny, *SHORT, "student.transfer_steps=4", "--images", "30,50"]
    said = typed(*words, "--out", "out", "--quiet")
    assert said.code == 0, said.err
    out = tmp_path / "out"
    # nokd, control, raw, subsampled, filtered (which is cgan: classes keep their labels), replaced, + KD; M = 30
    assert stages(out) == {
        "describe_data": 1,
        "train_network": 1,
        "score_teacher": 1,
        "train_generator": 1,
        "train_density_ratio": 1,
        "burn_in": 1,  # the same whatever M is
        "calibrate_filter": 1,
        "make_images": 4,
        "train_student": 8,
        "score_student": 8,
        "find_worst_answers": 2,
    }
    found = json.loads((out / "ablation.json").read_text())
    bars = {bar["method"]: bar["values"] for bar in found["bars"]}
    assert [point["images"] for point in found["curve"]] == [0, 30, 50]
    assert found["curve"][0]["values"] == bars["nokd_longer"]
    assert found["curve"][2]["values"] == bars["cgan"]
    for name in ("bars.png", "bars.svg", "images.png", "images.svg"):
        assert (out / f"ablation-{name}").stat().st_size > 1000
    page = (out / "ablation.html").read_text()
    assert page.count("<svg") == 2
    assert "This recipe&#39;s cGAN-KD is the bar “+ filter”." in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table", "tiny.yaml", "--students", "cnn8,resnett8"], "network 'resnett8' is not known"),
        (["table", "tiny.yaml", "--methods", "kd,crrd"], "holds 'crrd', which is not known (did you mean 'crd'?)"),
        (["table", "tiny.yaml", "--settings", "data.train_sizes=3"], "'data.train_sizes' is not known"),
        (["table", "tiny.yaml", "--seeds", "0,x"], "is not allowed"),
        (["table", "seeds=[0]"], "no recipe among"),
        (["table", "nothing"], "'nothing' is neither a ready recipe nor an existing YAML file"),
        (["ablate", "tiny.yaml", "--images", "100,many"], "--images 'many' is not allowed"),
        (["ablate", "tiny.yaml", "student.network=resnett8"], "network 'resnett8' is not known"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_writes_nothing(
    tiny: Path, typed: Callable[..., Said], words: list[str], said: str
) -> None:
    assert said in typed(*words, "--out", "out", "--quiet").sentence()
    assert sorted(path.name for path in tiny.parent.iterdir()) == ["tiny.yaml"]


@pytest.mark.parametrize(("command", "file"), [("table", "table.json"), ("ablate", "ablation.json")])
def test_the_folder_of_another_recipe_is_refused(
    tmp_path: Path, typed: Callable[..., Said], command: str, file: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).write_text(json.dumps({"recipes": ["fashion"]}))
    assert "holds results of fashion, not only of digits" in typed(command, "digits", "--out", "out").sentence()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [file]
