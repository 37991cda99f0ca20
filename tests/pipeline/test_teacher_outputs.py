"""Teachers, students and continual networks that give probabilities where logits are wanted, on the whole road."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from answering_teachers import stages, tiny
from cgankd.config import yaml_config
from cgankd.continual import run as continual
from cgankd.continual.settings import Continual
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, read_json, save_tensors
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Artifact
from cgankd.nets import zoo
from cgankd.nets.build import StoredNetwork
from cgankd.pipeline import run

NUMBER = itertools.count()
NETWORKS = """
from torch import nn
from cgankd.nets import zoo

class Own(nn.Module):
    def __init__(self, softmax, in_channels, num_outputs, image_size):
        super().__init__()
        self.inner, self.softmax = zoo.create("cnn8", in_channels, num_outputs, image_size), softmax

    def forward(self, images):
        outputs = self.inner(images)
        return outputs.softmax(1) if self.softmax else outputs

def plain(in_channels, num_outputs, image_size):
    return Own(False, in_channels, num_outputs, image_size)

def probable(in_channels, num_outputs, image_size):
    return Own(True, in_channels, num_outputs, image_size)
"""
SAID = "its outputs for training images are probabilities"


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with the networks ``plain`` and ``probable``."""
    name = f"output_networks_{next(NUMBER)}"  # a module of its own, because Python imports each name once
    (tmp_path / f"{name}.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def student_weights(out: Path) -> dict[str, torch.Tensor]:
    (student,) = stages(out, "train_student")
    return load_tensors(student / "weights.safetensors")[0]


def test_a_loaded_teacher_of_probabilities_teaches_what_its_logits_would(networks: str, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    torch.manual_seed(0)
    save_tensors(path, zoo.create(f"{networks}:plain", 1, 10, (16, 16)).state_dict())
    taught, found = {}, {}
    for name, words in {
        "logits": [f"teacher.network={networks}:plain"],
        "noticed": [f"teacher.network={networks}:probable"],
        "stated": [f"teacher.network={networks}:probable", "teacher.outputs=probabilities"],
        "as they are": [f"teacher.network={networks}:probable", "teacher.outputs=logits"],
    }.items():
        found[name] = run.run(tiny("compare.methods=[kd]", f"teacher.weights={path}", *words), tmp_path / name)
        taught[name] = student_weights(tmp_path / name)
    for name, value in taught["logits"].items():
        np.testing.assert_allclose(taught["noticed"][name].numpy(), value.numpy(), atol=1e-5)
        assert torch.equal(taught["stated"][name], taught["noticed"][name])
    assert any(not torch.allclose(taught["as they are"][n], v, atol=1e-4) for n, v in taught["logits"].items())
    warned = [name for name, record in found.items() if any(SAID in warning for warning in record["warnings"])]
    assert warned == ["noticed"]
    assert any(
        "; teacher.outputs=logits uses them without conversion" in warning for warning in found["noticed"]["warnings"]
    )


def test_a_teacher_that_is_trained_here_is_trained_and_opened_on_its_logits(networks: str, tmp_path: Path) -> None:
    words = ["compare.methods=[kd]", "teacher.fit.steps=2"]
    for name in ("plain", "probable"):
        run.run(tiny(*words, f"teacher.network={networks}:{name}"), tmp_path / name)
    for name, value in student_weights(tmp_path / "plain").items():
        np.testing.assert_allclose(student_weights(tmp_path / "probable")[name].numpy(), value.numpy(), atol=1e-5)
    (folder,) = stages(tmp_path / "probable", "train_network")
    artifact = Artifact(folder, "", 0.0, read_json(folder / "artifact.json")["summary"])
    opened = StoredNetwork(artifact).open(make_fabric("cpu", "fp32"))
    outputs = opened(torch.rand(5, 1, 16, 16)).detach()
    torch.testing.assert_close(outputs.exp().sum(1), torch.ones(5))


def test_a_juror_of_probabilities_votes_as_its_logits_would(
    module: Callable[[int], str], networks: str, tmp_path: Path
) -> None:
    source, votes = module(10), {}
    for name in ("linear", "probable"):
        words = [f"teacher.jury=[{{source: '{source}:{name}'}}]", "teacher.votes=mean", "compare.methods=[kd]"]
        found = run.run(tiny(*words), tmp_path / name)
        votes[name] = student_weights(tmp_path / name)
        assert any(warning.startswith(f"teacher.jury.0.source {source}:probable") for warning in found["warnings"]) == (
            name == "probable"
        )
    for name, value in votes["linear"].items():
        np.testing.assert_allclose(votes["probable"][name].numpy(), value.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["student.network={0}:probable"], r"student\.network '.*:probable': it gives probabilities, but its loss"),
        (["teacher.outputs=label_unit"], r"teacher\.outputs = label_unit is not allowed for classification; allowed"),
        (["teacher.network={0}:plain", "teacher.outputs=probabilities"], "are no probabilities: the smallest is "),
        (["teacher.outputs=percent"], r"teacher\.outputs = 'percent' is not allowed"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    networks: str, tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run.run(tiny(*(word.format(networks) for word in words)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_continual_network_of_probabilities_is_refused(networks: str, tmp_path: Path) -> None:
    settings = yaml_config.from_tree(
        Continual, {"data": {"source": "digits"}, "tasks": 5, "network": f"{networks}:probable"}, where="continual"
    )
    with pytest.raises(UserError, match=r"network '.*:probable': it gives probabilities, but its loss takes logits"):
        continual.run(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
