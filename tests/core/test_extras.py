from __future__ import annotations

import os
import subprocess
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


OPEN = """
import sys
from cgankd.core import extras
extras.opened("onnxruntime", "this", "export").InferenceSession(sys.argv[1])
"""


def test_packages_report_nothing_to_their_makers(tmp_path: Path) -> None:
    """onnxruntime keeps a number of the device in the home folder, for its reports."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]),
        tmp_path / "a.onnx",
    )
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in {*extras.REPORT_NOTHING, "CI"}}
    subprocess.run([sys.executable, "-c", OPEN, str(tmp_path / "a.onnx")], env={**kept, "HOME": str(home)}, check=True)
    assert [str(path) for path in home.rglob("*") if path.is_file()] == []


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    extras.report_nothing()
    assert (os.environ["ORT_DISABLE_TELEMETRY"], os.environ["RAY_USAGE_STATS_ENABLED"]) == ("0", "0")
