"""One run on two hosts: two network namespaces of Linux, joined by a cable, each with a hostname of its own.

Both see the same folders, as by a shared file system. Each gets the command of docs/clusters.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import CHECKPOINT_FILE, TINY, environment, process, same, script

from cgankd.core.store import open_artifact
from cgankd.synthesis.store import StoredFakes

pytestmark = pytest.mark.long

NAMES, ADDRESSES, PORT = ("first", "second"), ("10.77.0.1", "10.77.0.2"), "29500"
SMALL = [
    "run", "tiny.yaml", "compare.methods=[nokd,cgan_kd]", "metrics.generator=false", "teacher.fit.steps=30",
    "student.fit.steps=8", "student.transfer_steps=8", "generator.steps=10", "ratio.steps=100",
    "runtime.checkpoint_seconds=0.02", "--out", "out", "--no-report", "--no-export", "--quiet",
]  # fmt: skip
NODES = ["--devices", "1", "--num-nodes", "2"]
Runs = list[subprocess.Popen[str]]


class Hosts:
    """Two hosts. Each takes 127.0.1.1 for its own name, as Debian's do, and has no name server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.spaces = folder, [f"cgankd-{os.getpid()}-{name}" for name in NAMES]

    def build(self) -> None:
        """Raises CalledProcessError where the system has no network namespaces for this user."""
        for space in self.spaces:
            ip("netns", "add", space)
        first, second = self.spaces
        ip("-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        both = "".join(f"{address} {name}\n" for address, name in zip(ADDRESSES, NAMES, strict=True))
        for space, name, address in zip(self.spaces, NAMES, ADDRESSES, strict=True):
            (self.folder / name).write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n{both}")
            ip("-n", space, "address", "add", f"{address}/30", "dev", "cable")
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "set", "cable", "up")

    def remove(self) -> None:
        """End what still runs there; with a namespace its end of the cable goes, and so the cable."""
        for space in self.spaces:
            with contextlib.suppress(subprocess.CalledProcessError):  # it was not built
                for number in ip("netns", "pids", space).split():
                    os.kill(int(number), signal.SIGKILL)
                ip("netns", "delete", space)

    def plug(self, state: str) -> None:
        """Set the second host's end of the cable ``up`` or ``down``."""
        ip("-n", self.spaces[1], "link", "set", "cable", state)

    def start(self, number: int, words: list[str], cwd: Path, **variables: str) -> subprocess.Popen[str]:
        """The command on one of the hosts, in a process with the id of what is started here."""
        host = f"hostname {NAMES[number]}; mount --bind {self.folder / NAMES[number]} /etc/hosts; "
        host += 'mount --bind /dev/null /etc/resolv.conf; exec "$@"'
        return subprocess.Popen(
            ["ip", "netns", "exec", self.spaces[number], "unshare", "--mount", "--uts", "sh", "-ec", host, "-", *words],
            cwd=cwd,
            env={**environment(), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    if not (shutil.which("ip") and shutil.which("unshare")):
        pytest.skip("network namespaces need the commands ip and unshare")
    hosts = Hosts(tmp_path_factory.mktemp("hosts"))
    try:
        hosts.build()
        yield hosts
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {shlex.join(error.cmd)}: {error.stderr.strip()}")
    finally:
        hosts.remove()


def by_variables(hosts: Hosts, folder: Path) -> Runs:
    """The same command on both hosts; only its variables differ."""
    words = [script(), *SMALL, *NODES]
    return [
        hosts.start(number, words, folder, MASTER_ADDR=ADDRESSES[0], MASTER_PORT=PORT, NODE_RANK=str(number))
        for number in (0, 1)
    ]


def by_torchrun(hosts: Hosts, folder: Path) -> Runs:
    """The same, where torchrun sets the variables."""
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", ADDRESSES[0], "--master-port", PORT]
    return [
        hosts.start(number, [*torchrun, "--node-rank", str(number), "-m", "cgankd", *SMALL, *NODES], folder)
        for number in (0, 1)
    ]


def finish(runs: Runs) -> None:
    """Both end well, and only the first host prints."""
    said = [run.communicate(timeout=240) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert "cgan_kd" in said[0][0]
    assert said[1][0] == ""


def new_folder(folder: Path) -> Path:
    (folder / "tiny.yaml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def finished(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that two hosts have finished, started by torchrun; not to be written to."""
    folder = new_folder(tmp_path_factory.mktemp("finished"))
    finish(by_torchrun(hosts, folder))
    return folder / "out"


def test_two_hosts_compute_what_two_processes_of_one_host_do(finished: Path, tmp_path: Path) -> None:
    """To the last bit. That two processes compute what one does is tested elsewhere, for every loss."""
    assert json.loads((finished / "status.json").read_text())["host"] == "first"
    said = process(*SMALL, "--devices", 2, cwd=new_folder(tmp_path))
    assert said.code == 0, said.err
    same(finished, tmp_path / "out")


def test_one_process_trains_the_students_and_makes_the_images_of_two_hosts(finished: Path, tmp_path: Path) -> None:
    """It goes on in a copy of their folder, from the same teacher and generator."""
    out = new_folder(tmp_path) / "out"
    shutil.copytree(finished, out)
    again = [path for stage in ("train_student", "make_images") for path in (out / "artifacts").glob(f"{stage}-*")]
    assert len(again) == 3
    for folder in again:
        shutil.rmtree(folder)
    said = process(*SMALL, cwd=tmp_path)
    assert said.code == 0, said.err

    for one in again:
        two = finished / "artifacts" / one.name
        if one.name.startswith("make_images"):
            theirs, ours = StoredFakes(open_artifact(two)).open(), StoredFakes(open_artifact(one)).open()
            assert len(ours) == len(theirs) == 200
            torch.testing.assert_close(ours.images.float(), theirs.images.float(), rtol=0.0, atol=1.0)
            assert torch.equal(ours.labels, theirs.labels)
            torch.testing.assert_close(ours.columns, theirs.columns, rtol=1e-4, atol=1e-4)
        else:
            losses = [open_artifact(folder).summary["history"][-1]["loss"] for folder in (one, two)]
            assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    accuracies = [
        [row["values"] for row in json.loads((folder / "results.json").read_text())["rows"]]
        for folder in (out, finished)
    ]
    assert accuracies[1] == [pytest.approx(values, abs=0.5) for values in accuracies[0]]  # 2 of 449 test images


def cut(hosts: Hosts, runs: Runs) -> None:
    """The second host can't be reached any more."""
    hosts.plug("down")


def kill(hosts: Hosts, runs: Runs) -> None:
    runs[1].kill()


@pytest.mark.parametrize(
    ("stage", "lose", "code"),
    [
        ("train_network", kill, -signal.SIGKILL),  # both compute
        ("train_density_ratio", cut, 1),  # the first computes, the second waits
    ],
)
def test_where_the_second_host_is_lost_the_first_ends_and_the_same_command_goes_on(
    stage: str,
    lose: Callable[[Hosts, Runs], None],
    code: int,
    hosts: Hosts,
    finished: Path,
    tmp_path: Path,
) -> None:
    folder = new_folder(tmp_path)
    runs = by_variables(hosts, folder)
    while not list(folder.glob(f"out/work/{stage}-*/{CHECKPOINT_FILE}")):
        assert [run.poll() for run in runs] == [None, None]
        time.sleep(0.01)
    lose(hosts, runs)
    try:
        said = [run.communicate(timeout=120)[1] for run in runs]
    finally:
        hosts.plug("up")
    assert [run.returncode for run in runs] == [1, code]
    for number, text in enumerate(said[: 1 if code < 0 else 2], start=1):
        (line,) = [line for line in text.splitlines() if line.startswith("cgankd: ")]
        reason = f"cgankd: process {number} of 2 stopped, because another one has ended or can't be reached ("
        assert line.startswith(reason)
        assert f"); the same command goes on: cgankd {shlex.join([*SMALL, *NODES])}" in line
    assert not (folder / "out" / "results.json").exists()

    finish(by_variables(hosts, folder))
    same(folder / "out", finished)
