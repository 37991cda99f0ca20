"""A teacher whose training starts from weights of another task: what is kept, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cgankd.config.recipe import Recipe, from_tree
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors
from cgankd.nets import zoo
from cgankd.nets.weights import save_weights
from cgankd.pipeline import run

SETTINGS = {
    "seeds": [0],
    "data": {"source": "digits", "train_size": 40},
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
    save_weights(network, path)
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
