"""What can't be used is named in one sentence, with exit code 2, and leaves the run's folder as it was."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Said, process, write_bars
from PIL import Image
from safetensors.torch import save_file

from cgankd.nets import zoo

Typed = Callable[..., Said]


@pytest.fixture
def refused(typed: Typed, tiny: Path) -> Callable[..., str]:
    """refused(words of ``run``) -> the sentence; the run's folder is not even made."""

    def run(*words: object) -> str:
        out = tiny.parent / "out"
        sentence = typed("run", *words, "--quiet", "--out", out).sentence()
        assert not out.exists(), [str(path) for path in out.rglob("*")]
        return sentence

    return run


# --- recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nope"], ["'nope'", "cgankd recipes lists the ready ones"]),
        (["nope.yaml"], ["'nope.yaml'"]),
        (["tiny.yaml", "student.fit.stepz=3"], ["'student.fit.stepz'", "did you mean 'steps'", "batch_size"]),
        (["tiny.yaml", "studnet.network=resnet8"], ["'studnet'", "did you mean 'student'"]),
        (["tiny.yaml", "student.fit.steps=0"], ["student.fit.steps = 0", "allowed: a whole number at least 1"]),
        (["tiny.yaml", "student.fit.steps=many"], ["student.fit.steps = 'many'", "a whole number"]),
        (["tiny.yaml", "student.fit.steps=1.5"], ["student.fit.steps = 1.5"]),
        (["tiny.yaml", "student.fit.steps=true"], ["student.fit.steps = true"]),
        (["tiny.yaml", "student.fit.learning_rate=.inf"], ["student.fit.learning_rate = inf", "finite"]),
        (["tiny.yaml", "student.fit.learning_rate=.nan"], ["student.fit.learning_rate = nan"]),
        (["tiny.yaml", "seeds=[]"], ["seeds"]),
        (["tiny.yaml", "seeds=[0,0]"], ["seeds", "twice"]),
        (["tiny.yaml", "compare.methods=[nokd,nokd]"], ["compare.methods", "twice"]),
        (["tiny.yaml", "compare.methods=[]"], ["compare.methods"]),
        (["tiny.yaml", "compare.methods=[kdd]"], ["compare.methods", "'kdd'", "nokd"]),
        (["tiny.yaml", "ratio.hidden=[10]"], ["ratio.hidden", "8"]),
        (["tiny.yaml", "ratio.hidden=[]"], ["ratio.hidden"]),
        (["tiny.yaml", "generator.betas=[2,0.9]"], ["generator.betas"]),
        (["tiny.yaml", "ratio.betas=[0.5,1]"], ["ratio.betas"]),
        (["tiny.yaml", "student.fit.steps"], ["'student.fit.steps'", "key=value"]),
        (["tiny.yaml", "=3"], ["'=3'", "key=value"]),
        (["tiny.yaml", "student.fit.steps.more=3"], ["'student.fit.steps.more=3'"]),
        (["tiny.yaml", "student.fit=3"], ["student.fit = 3"]),
        (["tiny.yaml", "student.network=[a"], ["'[a'"]),
        (["tiny.yaml", "runtime.device=cuda"], ["runtime.device"]),
    ],
)  # fmt: skip
def test_settings(refused: Callable[..., str], words: list[str], named: list[str]) -> None:
    if words[-1] == "runtime.device=cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    sentence = refused(*words)
    for word in named:
        assert word in sentence


def test_a_recipe_that_is_no_yaml(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("student: {fit: [\n")
    assert "bad.yaml: not readable as YAML" in refused("bad.yaml")
    (tmp_path / "list.yaml").write_text("- student\n")
    assert "list.yaml: holds a list" in refused("list.yaml")


def test_an_unknown_option_and_a_missing_recipe(typed: Typed) -> None:
    assert "--nope" in typed("run", "digits", "--nope").sentence()
    assert "RECIPE" in typed("run").sentence()


# --- networks and weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize(
    ("network", "named"),
    [
        ("resnett8", "did you mean 'resnet8'"),
        ("no_such_module:make", "'no_such_module' can't be imported"),
        ("no_such_package.module:make", "'no_such_package.module' can't be imported"),
        ("os:no_such_function", "'no_such_function'"),
        (":make", "':make'"),
        ("broken_network:make", "SyntaxError"),
    ],
)
def test_networks_are_tried_before_anything_is_trained(
    refused: Callable[..., str], tmp_path: Path, who: str, network: str, named: str
) -> None:
    (tmp_path / "broken_network.py").write_text("def make(:\n")
    sentence = refused("tiny.yaml", f"{who}.network={network}")
    assert named in sentence
    assert repr(network) in sentence


ODD = """
from torch import nn
from cgankd.nets import zoo

class Tuple(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        outputs = self.network(images)
        return (outputs, outputs) if self.training else outputs

def two_heads(in_channels, num_outputs, image_size):
    return Tuple(zoo.create("cnn8", in_channels, num_outputs, image_size))

def half(in_channels, num_outputs, image_size):
    return zoo.create("cnn8", in_channels, num_outputs, image_size).half()

def frozen(in_channels, num_outputs, image_size):
    return zoo.create("cnn8", in_channels, num_outputs, image_size).requires_grad_(False)
"""


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("two_heads", "it gives tuple in training mode; allowed: one tensor [2, 10], the outputs"),
        ("half", "its weights are float16, but images are float32; network.float() converts the weights"),
        ("frozen", "it has no trainable parameter (requires_grad is False for all); needed: at least one"),
    ],
)
def test_networks_are_tried_in_training_mode_too(
    refused: Callable[..., str], tmp_path: Path, network: str, said: str
) -> None:
    (tmp_path / "odd_networks.py").write_text(ODD)
    own = f"odd_networks:{network}"
    for setting in ("student.network", "teacher.network", "ratio.features.network"):
        kind = ["ratio.features.kind=classifier"] if setting.startswith("ratio") else []
        sentence = refused("tiny.yaml", *kind, f"{setting}={own}")
        assert said in sentence
        assert repr(own) in sentence


def weights_file(folder: Path, kind: str) -> Path:
    path = folder / "teacher.safetensors"
    if kind == "another kind":
        path.write_bytes(b"PK\x03\x04 not what the suffix says")
    elif kind == "cut":
        save_file({"a": torch.zeros(100)}, path)
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "wrong shape":
        save_file(zoo.create("cnn8", 1, 7, (16, 16)).state_dict(), path)  # the digits are ten
    elif kind == "wrong network":
        save_file(zoo.create("resnet8", 1, 10, (16, 16)).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("missing", "does not exist"),
        ("another kind", "is not a safetensors file"),
        ("cut", "is not a safetensors file"),
        ("wrong shape", "has shape [7"),
        ("wrong network", "key "),
    ],
)
def test_teacher_weights(refused: Callable[..., str], tmp_path: Path, kind: str, named: str) -> None:
    sentence = refused("tiny.yaml", f"teacher.weights={weights_file(tmp_path, kind)}")
    assert named in sentence
    assert "teacher.safetensors" in sentence


def test_pytorch_weights_are_to_be_converted(refused: Callable[..., str], tmp_path: Path) -> None:
    torch.save(zoo.create("cnn8", 1, 10, (16, 16)).state_dict(), tmp_path / "teacher.pth")
    assert "convert" in refused("tiny.yaml", "teacher.weights=teacher.pth")


# --- data ---------------------------------------------------------------------------------------------------------


def class_folders(folder: Path) -> None:
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{number:02}.jpg")


def relabel(folder: Path, labels: dict[int, str] | str, column: str = "label") -> None:
    """Write metadata.csv anew: the labels of some rows (from 0), or one label for all; and the column's name."""
    with (folder / "metadata.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    rows[0][1] = column
    for number, row in enumerate(rows[1:]):
        row[1] = labels if isinstance(labels, str) else labels.get(number, row[1])
    with (folder / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


CLASSES = {
    "no such folder": (lambda f: None, ["data.source=nowhere"], ["'nowhere'", "a folder"]),
    "an empty class": (lambda f: (f / "eels").mkdir(), [], ["pictures/eels", "no images"]),
    "a truncated JPEG": (lambda f: truncate(f / "dogs" / "07.jpg"), [], ["dogs/07.jpg", "not readable"]),
    "a text file as JPEG": (lambda f: (f / "cats" / "x.jpg").write_text("no"), [], ["cats/x.jpg", "not readable"]),
    "more than there are": (lambda f: None, ["data.train_size=500"], ["train_size", "500"]),
    "two kinds of sizes": (
        lambda f: Image.new("L", (20, 20)).save(f / "cats" / "big.png"), [], ["pictures", "2 sizes", "data.size"],
    ),
    "a column without a table": (lambda f: None, ["data.label_column=age"], ["data.label_column", "metadata.csv"]),
    "a range for classes": (lambda f: None, ["data.label_range=[0,1]"], ["data.label_range", "pictures"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CLASSES)
def test_folders_of_classes(refused: Callable[..., str], tmp_path: Path, case: str) -> None:
    break_it, words, named = CLASSES[case]
    class_folders(tmp_path / "pictures")
    break_it(tmp_path / "pictures")
    sentence = refused("tiny.yaml", "data.train_size=null", "data.val_size=null", "data.source=pictures", *words)
    for word in named:
        assert word in sentence


SCALARS = {
    "NaN": (lambda f: relabel(f, {4: "nan"}), [], ["metadata.csv, line 6", "nan", "finite"]),
    "infinity": (lambda f: relabel(f, {4: "-inf"}), [], ["metadata.csv, line 6", "-inf", "finite"]),
    "empty": (lambda f: relabel(f, {4: " "}), [], ["metadata.csv, line 6", "empty"]),
    "a word": (lambda f: relabel(f, {4: "steep"}), [], ["metadata.csv, line 6", "'steep'", "not a number"]),
    "out of range": (
        lambda f: relabel(f, {4: "181.5"}), ["data.label_range=[0,180]"],
        ["metadata.csv, line 6", "181.5", "data.label_range", "0 to 180"],
    ),
    "an upside-down range": (lambda f: None, ["data.label_range=[180,0]"], ["data.label_range", "180 to 0"]),
    "no such column": (lambda f: relabel(f, {}, "angle"), [], ["metadata.csv", "'label'", "angle"]),
    "another column": (
        lambda f: None, ["data.label_column=age"],
        ["metadata.csv", "'age'", "data.label_column", "file_name, label"],
    ),
    "one distinct label": (lambda f: relabel(f, "90.5"), [], ["metadata.csv", "90.5", "two"]),
    "one class": (lambda f: relabel(f, "steep"), [], ["metadata.csv", "1 distinct", "two"]),
    "a missing picture": (lambda f: (f / "003.png").unlink(), [], ["metadata.csv, line 5", "'003.png'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SCALARS)
def test_folders_with_a_table(refused: Callable[..., str], tmp_path: Path, case: str) -> None:
    break_it, words, named = SCALARS[case]
    write_bars(tmp_path / "pictures", 30)
    break_it(tmp_path / "pictures")
    sentence = refused("tiny.yaml", "data.train_size=null", "data.val_size=null", "data.source=pictures", *words)
    for word in named:
        assert word in sentence


# --- the other commands, and folders ------------------------------------------------------------------------------


def test_data_of_an_unknown_name(typed: Typed, tmp_path: Path) -> None:
    assert "did you mean 'digits'" in typed("data", "digitz").sentence()
    assert not list(tmp_path.iterdir())


def test_data_with_an_unknown_setting(typed: Typed, tmp_path: Path) -> None:
    assert "did you mean 'label_column'" in typed("data", "digits", "label_colum=x").sentence()
    assert not list(tmp_path.iterdir())


def test_report_on_a_folder_without_results(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty holds no results.json" in typed("report", "empty").sentence()
    assert not list((tmp_path / "empty").iterdir())
    assert "nowhere" in typed("report", "nowhere").sentence()


def test_report_on_damaged_results(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text('{"rows": [')
    assert "results.json" in typed("report", "run").sentence()


@pytest.mark.parametrize("content", ["{}", "[1]"])
def test_report_on_somebody_elses_results(typed: Typed, tmp_path: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(content)
    assert "results.json" in typed("report", "run").sentence()


@pytest.mark.parametrize("below", ["", "deeper"])
def test_out_is_a_file(typed: Typed, tiny: Path, below: str) -> None:
    (tiny.parent / "out").write_text("mine")
    assert "out" in typed("run", tiny, "--quiet", "--out", Path("out") / below).sentence()
    assert (tiny.parent / "out").read_text() == "mine"


@pytest.mark.long
def test_nothing_but_the_sentence_on_stderr_at_any_precision(tmp_path: Path) -> None:
    said = process("run", "digits", "data.source=nowhere", "runtime.precision=bf16", "--out", "out", cwd=tmp_path)
    assert "'nowhere'" in said.sentence()
    assert not list(tmp_path.iterdir())
