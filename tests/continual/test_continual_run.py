"""A continual run: what each method learns from, what is shared, how a killed one goes on, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cgankd.config.settings import DataSettings
from cgankd.config.yaml_config import from_tree
from cgankd.continual.run import check, run
from cgankd.continual.settings import Continual, load, ready
from cgankd.continual.stages import learn
from cgankd.core.errors import OutOfTime, UserError
from cgankd.core.files import load_tensors
from cgankd.core.progress import Bar, Progress
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Store, Work
from cgankd.data import sources
from cgankd.data.imageset import ImageSet, Splits, UnlabelledImages
from cgankd.nets import inference
from cgankd.nets.build import StoredNetwork
from cgankd.tasks import Classification, Regression

Noise = Callable[..., ImageSet]


def tiny(**changes: Any) -> Continual:
    tree: dict[str, Any] = {
        "seeds": [0],
        "data": {"source": "digits", "train_size": 200, "val_size": 20},
        "tasks": 2,
        "network": "cnn8",
        "fit": {"steps": 6, "batch_size": 16, "momentum": 0, "weight_decay": 0},
        "runtime": {"threads": 1, "precision": "fp32", "checkpoint_seconds": 0},
        **changes,
    }
    return from_tree(Continual, tree, where="test")


ALL = ["gkd", "gkd+ta", "tkd", "tkd+ta"]
WHOLE: dict[str, Any] = {
    "methods": ALL, "tasks": 5, "seeds": [0, 1], "fit": {"steps": 3, "batch_size": 16},
    "runtime": {"threads": 1, "precision": "fp32"},
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of every kind of distillation over two seeds, and what it found."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(tiny(**WHOLE), out)


def weights(out: Path, **wanted: Any) -> dict[str, Tensor]:
    """The one task's weights whose stage was given these arguments; distils: the loss of the distillation."""
    found = []
    for path in sorted((out / "artifacts").iterdir()):
        given = json.loads((path / "artifact.json").read_text())["arguments"]
        distillation = given.pop("distillation") or {}
        given["distils"] = distillation.get("loss")
        if all(given[name] == value for name, value in wanted.items()):
            found.append(load_tensors(path / "weights.safetensors")[0])
    assert len(found) == 1
    return found[0]


def test_the_first_task_is_learnt_once_for_all_methods(whole: tuple[Path, dict[str, Any]]) -> None:
    assert len(list((whole[0] / "artifacts").iterdir())) == 2 * (1 + len(ALL) * 4)
    firsts = {tuple(row["together"][1][:1]) for row in whole[1]["rows"]}
    assert len(firsts) == 1


def test_results_follow_from_the_accuracies(whole: tuple[Path, dict[str, Any]]) -> None:
    out, found = whole
    assert json.loads((out / "results.json").read_text()) == found
    assert [row["method"] for row in found["rows"]] == ALL
    for row in found["rows"]:
        for seed in range(2):
            curve, matrix = row["together"][seed], row["per_task"][seed]
            assert [len(line) for line in matrix] == [1, 2, 3, 4, 5]
            assert row["final"]["values"][seed] == curve[-1]
            assert row["incremental"]["values"][seed] == pytest.approx(sum(curve) / 5)
            drops = [max(matrix[t][j] for t in range(j, 4)) - matrix[4][j] for j in range(4)]
            assert row["forgetting"]["values"][seed] == pytest.approx(sum(drops) / 4)
        assert row["final"]["mean"] == pytest.approx(statistics.fmean(row["final"]["values"]))
    by_name = {row["method"]: row for row in found["rows"]}
    assert [(gain["of"], gain["to"]) for gain in found["gains"]] == [("gkd+ta", "gkd"), ("tkd+ta", "tkd")]
    for gain in found["gains"]:
        a, b = (by_name[gain[side]]["final"]["values"] for side in ("of", "to"))
        assert gain["final"]["mean"] == pytest.approx(sum(a) / 2 - sum(b) / 2)
    assert any(gain["final"]["values"] != [0.0, 0.0] for gain in found["gains"])


def test_the_table_and_the_curves_are_written(whole: tuple[Path, dict[str, Any]]) -> None:
    out, found = whole
    lines = (out / "table.md").read_text().splitlines()
    row = found["rows"][-1]
    line = next(line for line in lines if line.startswith("| tkd+ta"))
    assert f"{row['final']['mean']:.1f} ± {row['final']['std']:.1f}" in line
    assert any(line.startswith("| gkd+ta − gkd ") for line in lines)
    assert (out / "accuracy.png").read_bytes()[1:4] == b"PNG"
    assert load(str(out / "recipe.yaml")) == tiny(**WHOLE)


def test_a_stored_network_scores_what_the_results_say(whole: tuple[Path, dict[str, Any]]) -> None:
    out, found = whole
    settings = tiny(**WHOLE)
    fabric = make_fabric(settings.runtime.device, settings.runtime.precision, settings.runtime.threads)
    splits, before = sources.load(settings.data), sorted((out / "artifacts").iterdir())
    store = Store(out, fabric, command="continual")
    network = StoredNetwork(learn(store, settings, splits, "gkd+ta", 1, 2)).open(fabric)
    store.close()
    assert sorted((out / "artifacts").iterdir()) == before
    outputs = inference.outputs(Work(fabric), network, splits.test.images)
    names = [str(label) for label in splits.test.labels.tolist()]
    order, right, count = found["order"][1], [0] * 3, [0] * 3
    for name, said in zip(names, outputs.argmax(dim=1).tolist(), strict=True):
        if name in order[:6]:
            count[order.index(name) // 2] += 1
            right[order.index(name) // 2] += order[said] == name
    row = next(row for row in found["rows"] if row["method"] == "gkd+ta")
    assert row["per_task"][1][2] == pytest.approx([100 * r / n for r, n in zip(right, count, strict=True)])
    assert row["together"][1][2] == pytest.approx(100 * sum(right) / sum(count))


def test_finetuning_leaves_the_old_outputs_weights_alone_and_the_others_do_not(tmp_path: Path) -> None:
    # Without weight decay, a row of the last layer changes only where a loss has seen its output.
    run(tiny(methods=["finetune", "gkd", "joint"]), tmp_path / "none")
    (row,) = run(tiny(methods=["finetune"], exemplars=2), tmp_path / "kept")["rows"]
    assert row["words"] == "new images and the kept ones"
    first = weights(tmp_path / "none", task=0)["fc.weight"]
    second = {"exemplars": 0, "task": 1}
    assert first.shape[0] == 5
    assert torch.equal(weights(tmp_path / "none", **second, distils=None, joint=False)["fc.weight"][:5], first)
    for changed in (
        weights(tmp_path / "none", **second, distils="gkd"),
        weights(tmp_path / "none", task=1, joint=True),
        weights(tmp_path / "kept", task=1, exemplars=2),
    ):
        assert (changed["fc.weight"][:5] != first).any(dim=1).all()
    # With exemplars: 100 new images (of 200, ten classes), and two of each of the five old classes.
    images = [json.loads(p.read_text())["summary"]["images"] for p in (tmp_path / "kept").glob("artifacts/*/*.json")]
    assert sum(images) == 200 + 2 * 5


def test_a_seed_of_a_method_depends_on_no_other(tmp_path: Path, whole: tuple[Path, dict[str, Any]]) -> None:
    found = run(tiny(**{**WHOLE, "methods": ["tkd+ta"], "seeds": [1]}), tmp_path)
    row = next(row for row in whole[1]["rows"] if row["method"] == "tkd+ta")
    assert found["rows"][0]["per_task"][0] == row["per_task"][1]
    assert found["gains"] == []


# --- killed -------------------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


class KillsAt(Progress):
    """Dies at a bar's fifth sign of life."""

    def __init__(self, title: str) -> None:
        self.title = title

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        class Dying(Bar):
            def to(bar, done: float, note: str = "") -> None:
                if title == self.title and done >= 5:
                    raise Killed

        yield Dying()


@pytest.mark.long
@pytest.mark.parametrize("method", ["gkd", "gkd+ta"])
def test_a_killed_run_ends_with_the_same_numbers(tmp_path: Path, method: str) -> None:
    settings = tiny(methods=[method])
    with pytest.raises(Killed):
        run(settings, tmp_path / "killed", KillsAt(f"{method} (seed 0), task 2"))
    assert not (tmp_path / "killed" / "results.json").exists()
    assert len(list((tmp_path / "killed" / "work").glob("*/checkpoint.safetensors"))) == 1
    again, once = run(settings, tmp_path / "killed"), run(settings, tmp_path / "once")
    assert again["rows"] == once["rows"]
    for path in sorted((tmp_path / "once" / "artifacts").iterdir()):
        other = tmp_path / "killed" / "artifacts" / path.name / "weights.safetensors"
        assert other.read_bytes() == (path / "weights.safetensors").read_bytes()


def test_time_that_is_over_stops_it(tmp_path: Path) -> None:
    with pytest.raises(OutOfTime):
        run(tiny(), tmp_path, deadline=0.0)
    assert not list(tmp_path.glob("artifacts/*"))


# --- refused ------------------------------------------------------------------------------------------------------


def no_norm(in_channels: int, num_outputs: int, image_size: tuple[int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], num_outputs))


def splits_of(images: ImageSet, classes: int) -> Splits:
    task = Classification(tuple("abcdefghij"[:classes]))
    return Splits("noise", task, images, images, images, images)


def test_a_network_without_batch_normalisation_can_do_all_but_adapt(noise: Noise) -> None:
    splits, name = splits_of(noise(40, classes=4), 4), f"{__name__}:no_norm"
    check(tiny(network=name, methods=["finetune", "gkd", "tkd", "joint"]), splits)
    with pytest.raises(UserError, match=rf"^network {name} has no batch normalisation"):
        check(tiny(network=name, methods=["gkd+ta"]), splits)


def test_adversarial_training_is_for_methods_that_ask_no_old_model(noise: Noise) -> None:
    splits, fit = splits_of(noise(40, classes=4), 4), {"steps": 2, "adversarial": {"eps": 0.1}}
    check(tiny(fit=fit, methods=["finetune", "joint"]), splits)
    with pytest.raises(UserError, match=r"fit.adversarial is set, .* without distillation \(finetune, joint\)$"):
        check(tiny(fit=fit, methods=["finetune", "gkd"]), splits)


def test_a_class_without_an_image_in_a_split_is_named(noise: Noise) -> None:
    splits = splits_of(noise(40, classes=4), 4)
    lacking = noise(40, classes=3)
    with pytest.raises(UserError, match=r"^noise: class 'd' has no test image"):
        check(tiny(), dataclasses.replace(splits, test=lacking))


def test_unlabelled_images_are_refused(noise: Noise) -> None:
    splits = dataclasses.replace(splits_of(noise(40, classes=4), 4), further=UnlabelledImages(noise(3).images))
    with pytest.raises(UserError, match=r"^data.unlabelled = None is for cgankd run, because .*; leave it out$"):
        check(tiny(), splits)


def test_scalars_are_refused(noise: Noise) -> None:
    images = noise(40, scalar=True)
    splits = Splits("angles", Regression(0.0, 1.0, ""), images, images, images, images)
    with pytest.raises(
        UserError, match=r"'digits' has scalar labels \(regression\), but .*; allowed: a data set of classes$"
    ):
        check(tiny(), splits)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("methods=[gkd, gkd]", "a method is listed twice"),
        ("methods=[lwf]", "methods.0 = 'lwf' is not allowed; allowed: finetune, gkd, gkd+ta, "),
        ("fit.augment.views=64", "fit.augment.views = 64 is not allowed; allowed: 0"),
        ("fit.augment.cutmix=1.0", "allowed: a number at least 0, at most 0"),
        ("seeds=[1,1]", "the same seed is given twice"),
        ("tasks=1", "tasks = 1 is not allowed; allowed: a whole number at least 2"),
        ("student.network=cnn8", "key 'student' is not known"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load("continual-fashion", [override])
    assert said in str(caught.value)
    assert str(caught.value).startswith("continual-fashion: ")


@pytest.mark.parametrize("name", sorted(ready()))
def test_ready_recipes_are_valid_and_say_what_they_are(name: str) -> None:
    settings = load(name)
    assert settings.name == name
    assert settings.description
    assert {"finetune", "gkd", "gkd+ta", "joint"} <= set(settings.methods)
    assert DataSettings(source=settings.data.source) == settings.data
