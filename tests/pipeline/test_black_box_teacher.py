"""Teachers that only answer, and juries that distillation matches, on the whole road."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from answering_teachers import onnx_file, stages, tiny
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, read_json, save_tensors
from cgankd.nets import zoo
from cgankd.pipeline import run
from cgankd.report.render import render
from cgankd.report.table import as_markdown


@pytest.mark.long
def test_a_black_box_from_end_to_end(module: Callable[[int], str], tmp_path: Path) -> None:
    source, out = f"{module(10)}:linear", tmp_path / "out"
    rows = "compare.methods=[nokd,nokd_longer,kd,cgan]"
    found = run.run(tiny(f"teacher.source={source}", rows), out)
    teacher = found["teacher"]
    assert (teacher["network"], teacher["parameters"], teacher["images"]) == (source, None, None)
    assert teacher["trained_on"] == "elsewhere"
    assert 0.0 <= teacher["test"] <= 100.0
    assert found["latency_ms"][source] is None
    assert any("ratio.features=nokd, metrics.generator.features=[nokd]" in note for note in found["notes"])
    assert not stages(out, "train_network")
    (ratio,) = stages(out, "train_density_ratio")
    seen_by = read_json(ratio / "artifact.json")["arguments"]["extractor"]
    assert seen_by["teacher"] is None
    assert found["artifacts"]["students"]["nokd"] == [f"artifacts/train_student-{seen_by['features']['StoredNetwork']}"]
    scores = {score["name"]: score["of"] for score in found["metrics"]["scores"]}
    assert {name.partition("[")[2].rstrip("], %") for name in scores if "FID" in name} == {"nokd"}
    assert scores["label score[teacher], %"]["raw"]["value"] is not None
    assert {entry["space"] for entry in found["metrics"]["memorisation"]} == {"pixels", "nokd"}
    assert found["metrics"]["bound"]["terms"][-1]["value"] is not None
    page = render(out).read_text()
    assert "the NOKD student" in page
    assert f"| teacher | the teacher | {source} | – | – |" in as_markdown(found)

    # The same map as an ONNX file: the same images pass.
    onnx_file(tmp_path / "t.onnx", 10)
    other = run.run(tiny(f"teacher.source={tmp_path / 't.onnx'}", "metrics.generator=false"), tmp_path / "onnx")
    assert other["synthesis"]["thresholds"] == pytest.approx(found["synthesis"]["thresholds"], rel=1e-3)
    assert other["synthesis"]["kept"] == found["synthesis"]["kept"]


FILES = ["teacher.source=predictions.csv", "generator.source=images", "synthesis.subsampling=none"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare.methods=[fitnet]"], "'fitnet' looks inside the teacher, but teacher.source is a black box"),
        (["compare.methods=[kd+kdiga]"], "'kdiga' differentiates the teacher, but teacher.source is a black box"),
        (["compare.methods=[takd]"], "'takd' looks inside the teacher"),
        (
            ["teacher.weights=t.safetensors"],
            "teacher.source and teacher.weights are both set; allowed: one of them",
        ),
        (
            ["teacher.jury=[{network: cnn8}, {source: a:b, start: t.safetensors}]"],
            r"teacher\.jury\.1\.source and teacher\.jury\.1\.start are both set; allowed: one of them",
        ),
        (
            ["teacher.jury=[{source: predictions.csv}]"],
            r"teacher\.jury\.0\.source predictions\.csv is a file of predictions, which a juror can't be",
        ),
        (["teacher.votes=mean"], "teacher.votes = mean needs teacher.jury, which is empty; allowed: first"),
        (["teacher.source=predictions.csv"], "needed: generator.source, the folder of those images"),
        (
            ["teacher.source=predictions.csv", "generator.source=images"],
            "synthesis.subsampling = maximum, but .* has subsampled; allowed: none",
        ),
        ([*FILES, "student.refit=true"], "student.refit = true asks the teacher about views of the validation images"),
        *(
            ([*FILES, f"compare.methods=[{name}]"], f"'{name}', which needs teacher outputs for further images")
            for name in ("kd", "cgan_kd", "pseudo")
        ),
    ],
)
def test_what_it_cannot_serve_is_refused_before_anything_is_trained(
    module: Callable[[int], str], tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run.run(tiny(f"teacher.source={module(10)}:linear", *words), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_answering_teacher_is_opened_before_anything_is_trained(
    module: Callable[[int], str], tmp_path: Path
) -> None:
    for source, said in [("none.onnx", "does not exist"), (f"{module(3)}:linear", r"needed: \[32, 10\]")]:
        for setting, words in [
            ("teacher.source", f"teacher.source={source}"),
            ("teacher.jury.0.source", f"teacher.jury=[{{source: '{source}'}}]"),
        ]:
            with pytest.raises(UserError, match=f"^{setting} .*{said}"):
                run.run(tiny(words), tmp_path / "out")
            assert not (tmp_path / "out" / "artifacts").exists()


# --- several teachers ---------------------------------------------------------------------------------------------


def test_a_jury_of_one_mind_teaches_what_its_first_would(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = zoo.create("cnn8", 1, 10, (16, 16))
    path = tmp_path / "t.safetensors"
    save_tensors(path, network.state_dict())
    jury = json.dumps([{"network": "cnn8", "weights": str(path)}] * 2)
    words = ["compare.methods=[kd]", f"teacher.weights={path}", f"teacher.jury={jury}"]
    students, keys = {}, set()
    for votes in ("first", "mean", "confidence"):
        run.run(tiny(*words, f"teacher.votes={votes}"), tmp_path / votes)
        (student,) = stages(tmp_path / votes, "train_student")
        keys.add(student.name)
        students[votes] = load_tensors(student / "weights.safetensors")[0]
    assert len(keys) == 3
    for votes in ("mean", "confidence"):
        for name, value in students["first"].items():
            np.testing.assert_allclose(students[votes][name].numpy(), value.numpy(), atol=1e-5)


@pytest.mark.long
def test_jurors_may_only_answer(module: Callable[[int], str], tmp_path: Path) -> None:
    onnx_file(tmp_path / "same.onnx", 10)
    source = f"{module(10)}:linear"
    jury = json.dumps([{"source": str(tmp_path / "same.onnx")}, {"source": source}])
    students = {}
    for votes in ("first", "mean"):
        words = [f"teacher.source={source}", f"teacher.jury={jury}", f"teacher.votes={votes}"]
        found = run.run(tiny(*words, "compare.methods=[kd,cgan]"), tmp_path / votes)
        assert found["synthesis"]["teachers"] == 3
        assert f"juror 2 is {source}" in found["notes"]
        folder = tmp_path / votes / found["artifacts"]["students"]["kd"][0]
        students[votes] = load_tensors(folder / "weights.safetensors")[0]
    for name, value in students["first"].items():
        np.testing.assert_allclose(students["mean"][name].numpy(), value.numpy(), atol=1e-4)


def test_the_teachers_scores_are_those_of_the_vote(tmp_path: Path) -> None:
    networks, words = [], ["compare.methods=[kd]"]
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(zoo.create("cnn8", 1, 10, (16, 16)).eval())
        save_tensors(tmp_path / f"{seed}.safetensors", networks[seed].state_dict())
    words += [f"teacher.weights={tmp_path / '0.safetensors'}", "teacher.votes=mean"]
    recipe = tiny(*words, f"teacher.jury=[{{network: cnn8, weights: {tmp_path / '1.safetensors'}}}]")
    found = run.run(recipe, tmp_path / "out")
    with run.opened(recipe, tmp_path / "out") as opened, torch.no_grad():
        for split, score in {"val": found["teacher"]["val"], "test": found["teacher"]["test"]}.items():
            images = getattr(opened.splits, split)
            shares = sum(network(images.images[:].float() / 255).softmax(1) for network in networks)
            assert score == pytest.approx(100 * float((shares.argmax(1) == images.labels).float().mean()))
    assert found["teacher"]["values"] == [found["teacher"]["test"]]
    assert "the teacher's scores are those of the mean vote of 2 teachers" in found["notes"]


def test_votes_that_differ_teach_something_else(tmp_path: Path) -> None:
    words = ["compare.methods=[kd]", "teacher.jury=[{network: cnn8}, {network: cnn16}]"]
    found = {
        votes: run.run(tiny(*words, f"teacher.votes={votes}"), tmp_path / "out")["artifacts"]["students"]["kd"]
        for votes in ("first", "mean", "confidence")
    }
    weights = []
    for path in found.values():
        tensors = load_tensors(tmp_path / "out" / path[0] / "weights.safetensors")[0]
        weights.append(torch.cat([tensor.flatten().float() for tensor in tensors.values()]))
    assert all(not torch.allclose(one, other) for one, other in itertools.combinations(weights, 2))
    assert len(stages(tmp_path / "out", "train_network")) == 3  # trained once, for all three runs


def test_votes_show_nothing_inside(tmp_path: Path) -> None:
    words = ["compare.methods=[pkt]", "teacher.jury=[{network: cnn8}]", "teacher.votes=mean"]
    with pytest.raises(UserError, match=r"'pkt' looks inside the teacher, but teacher.votes = mean combines several"):
        run.run(tiny(*words), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_only_answers_is_not_attacked(module: Callable[[int], str], tmp_path: Path) -> None:
    attack = ["metrics.robustness.images=20", "metrics.robustness.steps=1"]
    words = [f"teacher.source={module(10)}:linear", "compare.methods=[nokd_longer]", "seeds=[0]", *attack]
    found = run.run(tiny(*words), tmp_path)
    assert "robustness" not in found["teacher"]
    assert found["rows"][0]["robustness"]["pgd"]["mean"] <= found["rows"][0]["robustness"]["clean"]["mean"]
    assert any("the teacher was not attacked" in note for note in found["notes"])
