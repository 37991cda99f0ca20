"""A teacher whose training starts from weights of another task: what is kept, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cgankd.config.recipe import Recipe, from_tree
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, save_tensors
from cgankd.nets import zoo
from cgankd.pipeline import run

SETTINGS = {
    "seeds": [0],
    "data": {"source": "digits", "train_size": 40, "val_size": 10},
    "teacher": {"network": "cnn8", "fit": {"steps": 1, "batch_size": 8, "learning_rate": 1e-6}},
    "student": {"network": "cnn8", "fit": {"steps": 1, "batch_size": 8}},
    "compare": {"methods": ["nokd"]},
    "metrics": {"generator": False},
    "runtime": {"threads": 1, "precision": "fp32"},
}


def recipe(*overrides: str) -> Recipe:
    return from_tree(json.loads(json.dumps(SETTINGS)), overrides)


def other_task(path: Path) -> dict[str, torch.Tensor]:
    """Weights of the teacher's network for four classes."""
    torch.manual_seed(0)
    network = zoo.create("cnn8", 1, 4, (16, 16))
    save_tensors(path, network.state_dict())
    return network.state_dict()


def test_training_starts_from_the_file_and_the_table_says_so(tmp_path: Path) -> None:
    source = other_task(tmp_path / "w.safetensors")
    start = f"teacher.start={tmp_path / 'w.safetensors'}"
    found = run.run(recipe(start), tmp_path / "run")
    after = load_tensors(tmp_path / "run" / found["artifacts"]["teacher"] / "weights.safetensors")[0]
    for name, tensor in source.items():
        if name.endswith("weight") and name != "fc.weight":  # one step at a rate of nothing
            assert torch.allclose(after[name], tensor, atol=1e-4), name
    assert after["fc.weight"].shape[0] == 10
    said = f"the teacher's training started from {tmp_path / 'w.safetensors'}; from random weights: fc"
    plain = run.run(recipe(), tmp_path / "run")  # beside it: another teacher, and nothing to say
    assert found["notes"] == [*plain["notes"], said]
    assert plain["artifacts"]["teacher"] != found["artifacts"]["teacher"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["teacher.start=w.safetensors", "teacher.weights=w.safetensors"],
            r"and teacher.start are both set",
        ),
        (["teacher.start=absent.safetensors"], r"teacher.start = absent.safetensors does not exist"),
        (["teacher.start=w.safetensors", "teacher.network=resnet8"], r"is missing; CifarResNet needs it"),
        (["student.start=absent.safetensors"], r"student.start = absent.safetensors does not exist"),
        (["student.start=w.safetensors", "student.network=resnet8"], r"is missing; CifarResNet needs it"),
        (
            ["student.start=w.safetensors", "student.network=cnn24"],
            r"student.start = 'w.safetensors': \d+ of the \d+ layers of ConvNet .* \(first \S+: "
            r"\[8, 1, 3, 3\] in the file, \[24, 1, 3, 3\] in the network\)",
        ),
        (["student.start=package:absent"], r"student.start = 'package:absent' is not known"),
        (["teacher.jury=[{start: w.safetensors, network: resnet8}]"], r"is missing; CifarResNet needs it"),
        (["teacher.jury=[{start: absent.safetensors}]"], r"teacher.jury.0.start = absent.safetensors does not exist"),
    ],
)
def test_what_cannot_be_started_from_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    other_task(Path("w.safetensors"))
    with pytest.raises(UserError, match=message):
        run.run(recipe(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_students_start_from_the_file_with_a_new_head(tmp_path: Path) -> None:
    source = other_task(tmp_path / "w.safetensors")
    words = [
        f"student.start={tmp_path / 'w.safetensors'}", "student.fit.learning_rate=1e-6", "student.transfer_steps=1",
        "compare.methods=[nokd,kd,kd+vam]",
    ]  # fmt: skip
    results = run.run(recipe(*words), tmp_path / "run")
    for name in ("nokd", "kd", "kd+vam"):
        folder = tmp_path / "run" / results["artifacts"]["students"][name][0]
        after = load_tensors(folder / "weights.safetensors")[0]
        for layer, tensor in source.items():
            if layer.endswith("weight") and layer != "fc.weight":
                assert torch.allclose(after[layer], tensor, atol=1e-4), (name, layer)
        assert after["fc.weight"].shape[0] == 10
    (note,) = [note for note in results["notes"] if note.startswith("the students' trainings")]
    assert note.startswith(
        f"the students' trainings started from {tmp_path / 'w.safetensors'}; from random weights: fc"
    )


def test_the_key_follows_what_the_file_holds_and_not_its_name(tmp_path: Path) -> None:
    other_task(tmp_path / "a.safetensors")
    other_task(tmp_path / "b.safetensors")
    save_tensors(tmp_path / "c.safetensors", zoo.create("cnn8", 1, 4, (16, 16)).state_dict())
    artifacts = [
        run.run(recipe(f"student.start={tmp_path / name}.safetensors"), tmp_path / "run")["artifacts"]["students"]
        for name in "abc"
    ]
    assert artifacts[0] == artifacts[1] != artifacts[2]
