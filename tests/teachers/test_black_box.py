"""Functions and ONNX files that only answer: what they say, and what is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from answering_teachers import onnx_file, weight
from cgankd.core.errors import UserError
from cgankd.core.plugins import _imported_keys, _imports, _own_code, code_key, onnx_key
from cgankd.core.runtime import OneDevice
from cgankd.data.imageset import ImageSet
from cgankd.nets.build import CallableTeacher
from cgankd.tasks import Classification, Regression, Task
from cgankd.teachers.black_box import FunctionTeacher, OnnxTeacher
from cgankd.teachers.opening import open_teacher

CLASSES, DEGREES = Classification(("a", "b", "c")), Regression(-80.0, 80.0, "degrees")


def known(task: Task = CLASSES) -> ImageSet:
    """Seven images, each label equally often."""
    images = (pixels() * 255).round().to(torch.uint8)
    labels = torch.linspace(-80.0, 80.0, 7) if task.continuous else torch.arange(7) % task.num_outputs
    return ImageSet(images, labels)


def pixels(count: int = 7) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
def test_a_function_and_an_onnx_file_say_what_numpy_computes(
    module: Callable[[int], str], tmp_path: Path, task: Task
) -> None:
    onnx_file(tmp_path / "t.onnx", task.num_outputs)
    images = pixels()
    expected = images.numpy().reshape(7, 256).astype(np.float64) @ weight(task.num_outputs) + 0.5
    for source in (f"{module(task.num_outputs)}:linear", str(tmp_path / "t.onnx")):
        teacher = open_teacher(source, task, known(task))
        for shown in (images, images.to(memory_format=torch.channels_last)):
            np.testing.assert_allclose(teacher(shown).numpy(), expected, rtol=1e-4, atol=1e-4)
        assert teacher.knows(torch.zeros(3, 1, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("array", r"gives ndarray; needed: a tensor \[7, 3\]"),
        ("narrow", r"gives outputs \[7, 0\] for 7 images; needed: \[7, 3\]"),
        ("flat", r"gives outputs \[7\] for 7 images; needed: \[7, 3\]"),
        ("broken", r"calling it on 7 images failed \(RuntimeError: out of ink\); it gets float images \[B, 1"),
        ("endless", r"gives outputs that are not finite"),
        ("missing", r"has no function 'missing'"),
    ],
)
def test_functions_that_are_refused(module: Callable[[int], str], name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_teacher(f"{module(3)}:{name}", CLASSES, known())


def test_what_fails_for_another_number_of_images_is_a_sentence_too(tmp_path: Path) -> None:
    onnx_file(tmp_path / "t.onnx", 3)
    model = onnx.load(tmp_path / "t.onnx")
    model.graph.node[-1].output[0] = "sum"
    model.graph.node.append(helper.make_node("Reshape", ["sum", "shape"], ["logits"]))  # an exporter froze the batch
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 3]), "shape"))
    onnx.save(model, tmp_path / "t.onnx")
    with pytest.raises(UserError, match=r"calling it on 3 images failed \(.*\); it gets float images \[B, 1, 16"):
        open_teacher(str(tmp_path / "t.onnx"), CLASSES, known())
    file = OnnxTeacher(tmp_path / "t.onnx", CLASSES)
    function = FunctionTeacher(lambda images: images.reshape(7, 256)[:, :3], CLASSES, "own:function")
    for teacher in (file, function):
        assert teacher(pixels()).shape == (7, 3)
        with pytest.raises(UserError, match=r"calling it on 8 images failed \(.*\); it gets float images \[B, 1, 16"):
            teacher(pixels(8))


def test_one_number_for_each_image_may_come_without_a_second_dimension() -> None:
    labels = torch.linspace(-80.0, 80.0, 7)  # as an exported student of an earlier run gives them
    teacher = FunctionTeacher(lambda images: labels, DEGREES, "own:function")
    assert teacher.raw_outputs(pixels()).equal(labels[:, None])
    with pytest.raises(UserError, match=r"gives outputs \[7\] for 8 images; needed: \[8, 1\]"):
        teacher(pixels(8))


def test_outputs_of_a_function_that_enables_gradients_have_none() -> None:
    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def first_pixels(images: torch.Tensor) -> torch.Tensor:
        return images.requires_grad_().flatten(1)[:, :3]

    assert not FunctionTeacher(first_pixels, CLASSES, "own:function")(pixels()).requires_grad


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"outputs": 4}, r"gives outputs \[7, 4\] for 7 images; needed: \[7, 3\]"),
        ({"outputs": 3, "batch": 2}, r"has inputs pixels tensor\(float\) \[2, 1, 16, 16\]; needed: one input"),
        ({"outputs": 3, "rank": 2}, r"has inputs pixels tensor\(float\) \['B', 256\]; needed: one input"),
    ],
)
def test_onnx_files_that_are_refused(tmp_path: Path, made: dict[str, Any], words: str) -> None:
    onnx_file(tmp_path / "t.onnx", **made)
    with pytest.raises(UserError, match=words):
        open_teacher(str(tmp_path / "t.onnx"), CLASSES, known())


def test_probabilities_become_logits_unless_a_setting_says_otherwise(module: Callable[[int], str]) -> None:
    source, images = f"{module(3)}:probable", pixels()
    noticed = open_teacher(source, CLASSES, known())
    stated = open_teacher(source, CLASSES, known(), "teacher", "probabilities")
    as_they_are = open_teacher(source, CLASSES, known(), "teacher", "logits")
    probabilities = as_they_are(images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(7))
    for teacher in (noticed, stated):
        torch.testing.assert_close(teacher(images), probabilities.clamp(min=1e-12).log())
    assert noticed.content_key == stated.content_key != as_they_are.content_key
    assert noticed.note.startswith(f"teacher.source {source}: its outputs for training images are probabilities")
    assert (stated.note, as_they_are.note) == ("", "")
    logits = open_teacher(source.replace("probable", "linear"), CLASSES, known())
    assert (logits.gives, logits.note) == (None, "")
    with pytest.raises(UserError, match=r"teacher\.jury\.1\.source .*: its outputs .* are no probabilities"):
        open_teacher(source.replace("probable", "linear"), CLASSES, known(), "teacher.jury.1", "probabilities")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no teacher")
    (tmp_path / "broken.onnx").write_text("no network")
    (tmp_path / "empty.onnx").touch()
    for source, words in [
        ("no_such_module_at_all:f", "teacher.source .* can't be imported"),
        (str(tmp_path / "none.onnx"), "does not exist; allowed: module:function, an .onnx file, an address"),
        (str(tmp_path / "none.csv"), "does not exist; allowed"),
        (str(tmp_path / "notes.txt"), "is a file of another kind; allowed"),
        (str(tmp_path / "broken.onnx"), r"teacher.source .*: is no ONNX file, or a part of one \(10 bytes\); needed: "),
        (str(tmp_path / "empty.onnx"), r"teacher.source .*: is no ONNX file, or a part of one \(0 bytes\); needed: "),
    ]:
        with pytest.raises(UserError, match=words):
            open_teacher(source, CLASSES, known())


def test_an_edited_function_is_another_teacher(module: Callable[[int], str], tmp_path: Path) -> None:
    name = module(3)
    before = open_teacher(f"{name}:linear", CLASSES, known()).content_key
    assert open_teacher(f"{name}:linear", CLASSES, known()).content_key == before
    (tmp_path / f"{name}.py").write_text((tmp_path / f"{name}.py").read_text() + "# edited\n")
    assert open_teacher(f"{name}:linear", CLASSES, known()).content_key != before


def test_two_functions_of_one_file_are_two_teachers(module: Callable[[int], str], tmp_path: Path) -> None:
    name = module(3)
    path = tmp_path / f"{name}.py"
    path.write_text(path.read_text() + "\n\ndef other(images):\n    return -linear(images)\n")
    assert code_key(f"{name}:linear") != code_key(f"{name}:other")


def test_an_edited_file_of_a_package_is_seen_wherever_the_function_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_teachers").mkdir()
    (tmp_path / "my_teachers/__init__.py").write_text("from .inner import answer\n")
    (tmp_path / "my_teachers/inner.py").write_text("def answer(images): ...\n")
    before = [code_key(name) for name in ("my_teachers:answer", "my_teachers.inner:answer")]
    (tmp_path / "my_teachers/inner.py").write_text("def answer(images): return None\n")
    after = [code_key(name) for name in ("my_teachers:answer", "my_teachers.inner:answer")]
    assert len({*before, *after}) == 4


def test_of_a_folder_that_is_no_package_the_file_counts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_project/nets").mkdir(parents=True)
    for name in ("my_project/train.py", "my_project/nets/small.py"):
        (tmp_path / name).write_text("def make(): ...\n")
    keys = [code_key("my_project.nets.small:make")]
    for name in ("my_project/train.py", "my_project/nets/small.py"):
        (tmp_path / name).write_text("def make(): return None\n")
        keys.append(code_key("my_project.nets.small:make"))
    assert keys[0] == keys[1] != keys[2]


def test_weights_beside_an_onnx_file_belong_to_it_by_whatever_name(tmp_path: Path) -> None:
    path = tmp_path / "t.onnx"
    weights = numpy_helper.from_array(np.ones((3, 256), np.float32), "w")
    graph = helper.make_graph([], "g", [], [], initializer=[weights])
    (tmp_path / "w").mkdir()
    outside = {"save_as_external_data": True, "location": "w/weights.bin", "size_threshold": 0}
    onnx.save(helper.make_model(graph), path, **outside)
    keys = [onnx_key(path)]
    for name, content in (("w/weights.bin", b"1"), ("w/weights.bin", b"2"), ("g", b"1")):
        (tmp_path / name).write_bytes(content)
        keys.append(onnx_key(path))
    assert len(set(keys[:3])) == 3
    assert keys[3] == keys[2]  # a file whose name stands there as something else is none of its weights


def test_weights_in_the_branches_of_an_onnx_file_belong_to_it_too(tmp_path: Path) -> None:
    tensors = {name: numpy_helper.from_array(np.ones((3, 256), np.float32), name) for name in ("then", "else")}
    constant = helper.make_node("Constant", [], ["else"], value=tensors["else"])
    branches = {
        "then_branch": helper.make_graph([], "then", [], [], initializer=[tensors["then"]]),
        "else_branch": helper.make_graph([constant], "else", [], []),
    }
    graph = helper.make_graph([helper.make_node("If", ["which"], ["y"], **branches)], "g", [], [])
    outside = {"save_as_external_data": True, "all_tensors_to_one_file": False, "size_threshold": 0}
    onnx.save(helper.make_model(graph), tmp_path / "t.onnx", **outside, convert_attribute=True)
    keys = [onnx_key(tmp_path / "t.onnx")]
    for name in ("then", "else"):
        (tmp_path / name).write_bytes(b"changed")
        keys.append(onnx_key(tmp_path / "t.onnx"))
    assert len(set(keys)) == 3


def test_a_file_that_a_function_reads_is_part_of_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def answer(images): return images\nanswer.files = ['weights.bin']\n"
    (tmp_path / "reads_weights.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = []
    for content in (b"first", b"second", b"first"):
        (tmp_path / "weights.bin").write_bytes(content)
        keys.append(code_key("reads_weights:answer"))
    assert keys[0] == keys[2] != keys[1]
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(
        UserError, match=r"reads_weights:answer: its attribute files names .*weights\.bin, which does not exist"
    ):
        code_key("reads_weights:answer")


def test_modules_of_the_user_that_a_function_imports_are_part_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "imports_others.py": "import json, own_a, missing_b\ndef answer(images): return own_a.f(images)\n",
        "own_a.py": "def f(images):\n    from own_folder.deep import g\n    return g(images)\n",
        "own_folder/deep.py": "from . import beside\nfrom own_package import h\n",
        "own_folder/beside.py": "import own_a\n",
        "own_package/__init__.py": "",
        "own_package/part.py": "",
        "unused.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_key("imports_others:answer")
    changed = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "# edited\n")
        changed += [name] * (code_key("imports_others:answer") != before)
        (tmp_path / name).write_text(text)
    assert changed == [name for name in texts if name != "unused.py"]
    assert code_key("imports_others:answer") == before


def test_the_files_of_installed_packages_are_not_read_for_a_key() -> None:
    assert _imported_keys([Path(numpy_helper.__file__)]) == []
    assert [module for _, module in _imports(b"import torch.nn, os") if _own_code(module)] == []


def test_a_function_may_change_its_images_without_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in_place.py").write_text("def answer(images): return images.sub_(0.5).flatten(1)[:, :3]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    shown = pixels()
    outputs = open_teacher("in_place:answer", CLASSES, known())(shown)
    assert torch.equal(shown, pixels())
    assert torch.equal(outputs, pixels().flatten(1)[:, :3] - 0.5)
    asked = CallableTeacher(lambda images: images.sub_(0.5).flatten(1)[:, :3], "key").open(OneDevice())(shown)
    assert torch.equal(shown, pixels())
    assert torch.equal(asked, outputs)


def test_answers_that_depend_on_their_batch_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modes.py").write_text(
        "from torch import manual_seed, nn\n"
        "manual_seed(0)\n"
        "def network(): return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256), nn.Linear(256, 3))\n"
        "training, trained = network(), network().eval()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not open_teacher("modes:trained", CLASSES, known()).note
    note = open_teacher("modes:training", CLASSES, known()).note
    assert note.startswith("teacher.source modes:training: its outputs for the same images differ from batch to batch")
    assert "network.eval()" in note
