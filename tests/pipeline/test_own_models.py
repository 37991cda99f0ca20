"""Own models that don't fit the data are refused before anything is trained, with both sides named; outputs that
hardly fit the labels are a warning with both ranges."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from answering_teachers import onnx_file, tiny
from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.data.imageset import ImageSet, Splits
from cgankd.gan.adapters import StoredImages
from cgankd.nets import zoo
from cgankd.pipeline import preflight, run
from cgankd.tasks import Classification, Regression, Task
from cgankd.teachers.answers import StoredAnswers
from cgankd.teachers.opening import open_teacher
from served_teacher import served

NETS = """
import torch
from torch import nn

def build(in_channels, num_outputs, image_size):
    layers = [nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], num_outputs)]
    return nn.Sequential(*layers)

def fixed(in_channels, num_outputs, image_size):
    return build(in_channels, 3, image_size)

def colour(in_channels, num_outputs, image_size):
    return build(3, num_outputs, image_size)

def three(images):
    return images.flatten(1)[:, :3]
"""
NEEDED = r"\[32, 10\], because the data has 10 classes"
FIXED = (
    r"network 'own_nets:fixed': for images \[2, 1, 16, 16\] it gives \[2, 3\]; allowed: a tensor \[2, 10\], "
    r"because the data has 10 classes"
)
MADE_FOR = r"\(the network is made for images \[1, 16, 16\] and 10 outputs, because the data has 10 classes\)"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with modules and files of weights for three classes, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    (tmp_path / "own_nets.py").write_text(NETS)
    save_tensors(Path("own.safetensors"), nn.Sequential(nn.Flatten(), nn.Linear(256, 3)).state_dict())
    save_tensors(Path("cnn8.safetensors"), zoo.create("cnn8", 1, 3, (16, 16)).state_dict())
    onnx_file(tmp_path / "three.onnx", 3)
    onnx_file(tmp_path / "ten.onnx", 10)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["teacher.network=own_nets:build", "teacher.weights=own.safetensors"],
            rf"'1.weight' has shape \[3, 256\]; Sequential needs \[10, 256\] {MADE_FOR}",
        ),
        (
            ["teacher.network=cnn8", "teacher.weights=cnn8.safetensors"],
            rf"'fc.weight' has shape \[3, \d+\]; ConvNet needs \[10, \d+\] {MADE_FOR}",
        ),
        (
            ["teacher.network=own_nets:fixed", "teacher.weights=own.safetensors"],
            FIXED,
        ),
        (["teacher.network=own_nets:fixed"], FIXED),
        (["teacher.network=own_nets:colour"], r"network 'own_nets:colour': it fails on images \[2, 1, 16, 16\] .*768"),
        (["student.network=own_nets:fixed"], FIXED),
        (["teacher.source=own_nets:three"], rf"gives outputs \[32, 3\] for 32 images; needed: {NEEDED}"),
        (["teacher.source=three.onnx"], rf"gives outputs \[32, 3\] for 32 images; needed: {NEEDED}"),
        (
            ["teacher.source=ten.onnx", "data.size=20"],
            r"takes images \[1, 16, 16\], but those of the data are \[1, 20, 20\]",
        ),
        (
            ["teacher.source=ten.onnx", "data.channels=3"],
            r"takes images \[1, 16, 16\], but those of the data are \[3, 16, 16\]",
        ),
        (["teacher.jury=[{source: three.onnx}]"], rf"teacher.jury.0.source .* \[32, 3\] .* needed: {NEEDED}"),
    ],
)
def test_another_number_of_classes_or_shape_is_refused_before_training(
    own: Path, words: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run.run(tiny(*words), own / "run")
    assert not (own / "run").exists()


def test_timms_weights_for_other_classes_are_refused(own: Path) -> None:
    pytest.importorskip("timm")
    save_tensors(Path("timm.safetensors"), zoo.create("timm/resnet18", 1, 3, (16, 16)).state_dict())
    with pytest.raises(UserError, match=rf"'fc.weight' has shape \[3, 512\]; ResNet needs \[10, 512\] {MADE_FOR}"):
        run.run(tiny("teacher.network=timm/resnet18", "teacher.weights=timm.safetensors"), own / "run")


# --- outputs and labels -------------------------------------------------------------------------------------------

ANGLES = Regression(0.0, 90.0, "degrees")
CLASSES = Classification(("ant", "bee", "cat", "dog"))
TEACHERS = """
from torch import nn

def right(images):  # in [0, 1], as the labels are made
    return images.mean((1, 2, 3))[:, None]

def degrees(images):
    return 90 * right(images)

def flat(images):
    return 0.5 + 0 * right(images)

def thousands(images):
    return 1000 + 90 * right(images)

def classes(images):
    return nn.functional.one_hot((images.mean((1, 2, 3)) * 4).long().clamp(max=3), 4).float() * 9

def turned(images):
    return classes(images).roll(1, 1)

def bytes_expected(images):
    return classes(images / 255)
"""


def labelled(task: Task) -> ImageSet:
    """40 grey images, whose brightness is the label."""
    levels = torch.linspace(0.05, 0.95, 40)
    images = (levels * 255).round().to(torch.uint8)[:, None, None, None].expand(40, 1, 16, 16).contiguous()
    return ImageSet(images, levels * 90 if task.continuous else (levels * 4).long())


MISS = r"go from {} for images whose labels go from 4.5 to 85.5 degrees; taken as {} they miss the labels by {} % of "
ORDER = (
    r"is right for \d of 32 labelled images, guessing for 8; is the order of its outputs that of the data's 4 classes"
)


@pytest.mark.parametrize(
    ("task", "function", "outputs", "warning"),
    [
        (ANGLES, "right", "auto", ""),
        (ANGLES, "right", "scaled", ""),
        (ANGLES, "degrees", "label_unit", ""),
        (ANGLES, "right", "label_unit", MISS.format(r"0.05\d* to 0.94\d*", "label_unit", r"49\.\d")),
        (ANGLES, "degrees", "scaled", MISS.format(r"4\.\d+ to 85\.\d+", "scaled", r"\S+")),
        (ANGLES, "flat", "auto", MISS.format(r"0.5 to 0.5", "scaled", r"\S+")),
        (ANGLES, "thousands", "label_unit", MISS.format(r"1005 to 1085", "label_unit", r"\S+")),
        (CLASSES, "classes", "logits", ""),
        (CLASSES, "turned", "logits", ORDER + r" \(ant, bee, cat, ...\)"),
        (CLASSES, "bytes_expected", "auto", ORDER + r".* and does it take pixels in \[0, 1\]\?"),
    ],
)
def test_outputs_that_hardly_fit_the_labels_are_a_warning_with_both_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task, function: str, outputs: str, warning: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "seen_teachers", raising=False)
    (tmp_path / "seen_teachers.py").write_text(TEACHERS)
    teacher = open_teacher(f"seen_teachers:{function}", task, labelled(task), outputs=outputs)
    if not warning:
        assert teacher.note == ""
    else:
        with pytest.raises(AssertionError, match=warning):
            raise AssertionError(teacher.note)


def test_scalars_of_another_unit_are_refused_where_no_setting_states_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "seen_teachers", raising=False)
    (tmp_path / "seen_teachers.py").write_text(TEACHERS)
    with pytest.raises(UserError, match=r"go from 4\.\d+ to 85\.\d+ .* the label's unit \(0 to 90 degrees\)"):
        open_teacher("seen_teachers:degrees", ANGLES, labelled(ANGLES))


def test_a_server_with_another_unit_is_warned_of_too() -> None:
    with served(1) as server:
        server.change = lambda outputs: np.clip(outputs, 0, 1)
        teacher = open_teacher(server.address, ANGLES, labelled(ANGLES), outputs="label_unit")
    assert "for images whose labels go from 4.5 to 85.5 degrees; taken as label_unit they miss" in teacher.note


@pytest.mark.parametrize(("scale", "warned"), [(1.0, False), (1 / 90, True)])
@pytest.mark.parametrize("validation", [True, False])
def test_a_file_of_predictions_in_another_unit_is_warned_of(scale: float, warned: bool, validation: bool) -> None:
    images = labelled(ANGLES)
    other = ImageSet(255 - images.images, 90 - images.labels)
    splits = Splits("made", ANGLES, train=other, pool=other, val=images if validation else other, test=other)
    outputs = ANGLES.to_target(images.labels * scale)[:, None]
    teacher = StoredAnswers(images.images, outputs, "p.csv")
    notes = preflight.prediction_notes(teacher, StoredImages(images, ANGLES), splits)
    assert len(notes) == warned
    if warned:
        assert "p.csv: its outputs go from 0.05 to 0.95 for images whose labels go from 4.5 to 85.5 degrees" in notes[0]


def test_weights_that_do_not_know_the_classes_are_said(own: Path) -> None:
    torch.manual_seed(0)
    save_tensors(Path("fresh.safetensors"), zoo.create("cnn8", 1, 10, (16, 16)).state_dict())
    words = ["teacher.network=cnn8", "teacher.weights=fresh.safetensors", "compare.methods=[nokd]"]
    results = run.run(tiny(*words), own / "run")
    (said,) = [warning for warning in results["warnings"] if "guessing for" in warning]
    assert said.startswith("teacher.network 'cnn8': it is right for ")
