"""What a file of someone else can do here, and what leaves this machine: nothing is unpickled or executed, no run needs
the network, and no name becomes a part of a page."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import cgankd
from cgankd.continual import report as continual_report
from cgankd.data import showing
from cgankd.report.shown import RunResults, ShownTable, counts

SOURCES = Path(cgankd.__file__).parent
UNPICKLING = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "_pickle", "pickletools"}
ALLOWED = {
    "nets/checkpoints.py": "pickle.UnpicklingError names what torch.load(weights_only=True) refuses",
}
UNSAFE_YAML = {
    "load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all", "Loader", "FullLoader",
    "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader",
}  # fmt: skip
TAG = "<script>alert(1)</script>"


def faults(tree: ast.AST) -> Iterator[str]:
    """What the code could unpickle or execute, a line each."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
            yield from (f"import {name}" for name in sorted(names & UNPICKLING))
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            if module in {*UNPICKLING, "yaml"} or (module == "torch" and "load" in {a.name for a in node.names}):
                yield f"from {module} import"  # of yaml too, so that what is called is written yaml.NAME
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml":
            if node.attr in UNSAFE_YAML:
                yield f"yaml.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from faults_of_call(node)


def faults_of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {word.arg: getattr(word.value, "value", word.value) for word in call.keywords}
    if name in {"eval", "exec", "builtins.eval", "builtins.exec", "torch.jit.load", "torch.package.PackageImporter"}:
        yield name
    if name in {"torch.load", "torch.serialization.load"} and given.get("weights_only") is not True:
        yield f"{name} without weights_only=True"
    if given.get("allow_pickle", False) is not False:
        yield f"{name}(allow_pickle=..)"


def test_nothing_is_unpickled_or_executed() -> None:
    """ALLOWED: a file, and why it may import pickle; it may use no function of it."""
    files = sorted(SOURCES.rglob("*.py"))
    assert len(files) > 200
    found = {}
    for path in files:
        name, tree = path.relative_to(SOURCES).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
        wrong = list(faults(tree))
        if name in ALLOWED:
            assert wrong == ["import pickle"], name
            used = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "pickle"]
            assert used
            assert ast.unparse(tree).count("pickle.") == ast.unparse(tree).count("pickle.UnpicklingError") == len(used)
        elif wrong:
            found[name] = wrong
    assert found == {}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import numpy, joblib", "import joblib"),
        ("from pickle import loads", "from pickle import"),
        ("from torch import load", "from torch import"),
        ("torch.load(path)", "torch.load without weights_only=True"),
        ("torch.load(path, weights_only=False)", "torch.load without weights_only=True"),
        ("torch.load(path, weights_only=safe)", "torch.load without weights_only=True"),
        ("np.load(path, allow_pickle=True)", "np.load(allow_pickle=..)"),
        ("yaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("class Mine(yaml.FullLoader): pass", "yaml.FullLoader"),
        ("eval(text)", "eval"),
    ],
)
def test_such_code_would_be_found(code: str, fault: str) -> None:
    assert fault in list(faults(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "network.eval()", "torch.load(path, weights_only=True)", "np.load(path)", "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)", "class Mine(yaml.SafeLoader): pass", "class Mine: eval = 1",
    ],
)  # fmt: skip
def test_other_code_is_no_fault(code: str) -> None:
    assert list(faults(ast.parse(code))) == []


# --- the network --------------------------------------------------------------------------------------------------

OFFLINE = """
import socket, sys

def local(host):
    return host in {"localhost", "127.0.0.1", "::1", "", None, socket.gethostname()}

def refusing(real, host_of):
    def call(*arguments, **more):
        if not local(host_of(arguments)):
            raise AssertionError(f"asked for {host_of(arguments)}")
        return real(*arguments, **more)
    return call

def of_address(arguments):  # a Unix socket has a path
    return arguments[1][0] if isinstance(arguments[1], tuple) else None

socket.getaddrinfo = refusing(socket.getaddrinfo, lambda arguments: arguments[0])
socket.gethostbyname = refusing(socket.gethostbyname, lambda arguments: arguments[0])
for name in "connect", "connect_ex":
    setattr(socket.socket, name, refusing(getattr(socket.socket, name), of_address))
"""
SMALL = """
extends: digits
seeds: [0]
data: {train_size: 60}
teacher: {network: cnn8, fit: {steps: 5}}
student: {network: cnn8, fit: {steps: 4, augment: {views: 2}}, transfer_steps: 4}
generator: {channels: 8, latent: 8, label_dim: 8, steps: 3, batch_size: 16, ema_start: 1}
ratio: {hidden: [32], steps: 3, batch_size: 64, fakes_per_image: 2}
synthesis: {images: 60, subsampling: {burn_in: 10}, filter: {calibration: 10}}
compare: {methods: [nokd_longer, cgan_kd]}
metrics: {generator: {images: 60}}
runtime: {threads: 1, precision: fp32}
"""


def offline(code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a Python that reaches no other machine."""
    command = [sys.executable, "-c", OFFLINE + code, *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('example.org', 80))",
        "socket.socket().connect(('192.0.2.1', 80))",
        "import urllib.request; urllib.request.urlopen('http://192.0.2.1')",
    ],
)
def test_another_machine_is_out_of_reach(code: str, tmp_path: Path) -> None:
    assert "asked for " in offline(code, cwd=tmp_path).stderr


@pytest.mark.long
def test_a_run_needs_no_network(tmp_path: Path) -> None:
    """With the export and the page; the data set comes with scikit-learn."""
    (tmp_path / "small.yaml").write_text(SMALL)
    code = "from cgankd.cli.main import main; main()"
    done = offline(code, "run", "small.yaml", "--out", "out", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"report.html", "results.json", "student.onnx"} <= {path.name for path in (tmp_path / "out").iterdir()}


# --- pages --------------------------------------------------------------------------------------------------------
# The page of a run is tested in report/test_render.py and e2e/test_odd_names.py, that of a comparison in
# report/test_comparison.py, that of an ablation in experiments/test_tables.py, Markdown in report/test_markdown.py;
# language models have no page.


def test_names_in_a_notebook_stay_text() -> None:
    pages = [
        showing.grid_html(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), [TAG], TAG),
        ShownTable([TAG], [[TAG]], [TAG])._repr_html_(),
        counts({"per_label": [entry := {"label": TAG, **numbers()}], **entry})._repr_html_(),
        RunResults(results())._repr_html_(),
    ]
    for page in pages:
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)" in page


def numbers() -> dict[str, int]:
    return dict.fromkeys(("requested", "generated", "accepted", "kept"), 1)


def results() -> dict[str, Any]:
    row = {"method": TAG, "network": TAG, "steps": 20, "real_images": 9, "fake_images": 12, "mean": 81.2, "std": None,
           "difference": None}  # fmt: skip
    return {"recipe": TAG, "dataset": TAG, "metric": TAG, "unit": "%", "higher_is_better": True, "seeds": [0],
            "rows": [row], "warnings": [TAG]}  # fmt: skip


def test_names_in_the_table_of_a_continual_run_stay_text() -> None:
    score = {"mean": 50.0, "std": None, "values": [50.0]}
    row = {"method": "gkd", "words": TAG, **dict.fromkeys(continual_report.COLUMNS, score)}
    text = continual_report.as_markdown({
        "recipe": TAG, "dataset": TAG, "tasks": 2, "network": TAG, "unit": "%", "metric": "accuracy", "rows": [row],
        "gains": [], "seeds": [0], "exemplars": 0, "notes": [TAG], "higher_is_better": True,
    })  # fmt: skip
    assert text.count("script") > 3
    assert "<script" not in text.replace("\\<", "")
