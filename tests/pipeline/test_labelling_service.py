"""Images written out to be labelled, a script that labels them, and the run that goes on with its answers."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from PIL import Image

from answering_teachers import TINY, stages, tiny, weight
from cgankd.cli import main
from cgankd.cli.screen import console
from cgankd.config.settings import NOKDFeatures, ScalarLabelSettings, SynthesisSettings
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, read_json
from cgankd.data.imageset import ImageSet
from cgankd.experiments import text as table_text
from cgankd.labels.scalars import ScalarLabels
from cgankd.nets.build import StoredNetwork
from cgankd.pipeline import labelling_service, preflight, run
from cgankd.pipeline.ratio_features import ratio_features
from cgankd.report.headline import EXPORTED
from cgankd.report.render import render
from cgankd.tasks import Classification, Regression

Answer = Callable[[npt.NDArray[np.float32]], Sequence[object]]


def answer(folder: Path, header: Sequence[str], say: Answer, skip: str = "nothing") -> Path:
    """What a labelling service does: read every image that is listed, write predictions.csv, in any order."""
    with (folder / "metadata.csv").open(newline="") as stream:
        files = [line["file_name"] for line in csv.DictReader(stream)]
    path = folder / "predictions.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", *header])
        for file in reversed(files):
            if not file.startswith(skip):
                pixels = np.asarray(Image.open(folder / file), dtype=np.float32) / np.float32(255.0)
                writer.writerow([file, *say(pixels.reshape(-1))])
    return path


def probabilities(pixels: npt.NDArray[np.float32]) -> list[object]:
    logits = pixels @ weight(10) + np.float32(0.5)
    return [repr(float(p)) for p in torch.from_numpy(logits).double().softmax(dim=0)]


def read_recipe(out: Path) -> dict[str, Any]:
    return yaml.safe_load((out / "recipe.yaml").read_text())


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """command("synthesize", ...) -> what it printed; it must end well."""
    monkeypatch.setattr(console, "width", 200)

    def typed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["cgankd", *words])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as stop:
            main.main()
        found = capsys.readouterr()
        assert not stop.value.code, found.err
        return found.out

    return typed


def columns(out: Path, found: dict[str, Any]) -> tuple[dict[str, torch.Tensor], bytes]:
    """What was made of the candidates."""
    made = out / found["artifacts"]["synthesis"]["cgan"]
    return load_tensors(made / "columns.safetensors")[0], (made / "images.u8").read_bytes()


def test_classes_there_and_back(module: Callable[[int], str], command: Callable[..., str], tmp_path: Path) -> None:
    again = {**TINY, "student": {**TINY["student"], "refit": True}}  # which files of predictions don't allow
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(again))
    words, folder, out = [str(tmp_path / "r.yaml"), "--quiet", "--out"], tmp_path / "images", tmp_path / "run"
    said = command("synthesize", *words, str(out), "--export", str(folder), "--candidates", "80")
    assert "80 candidates, 10 validation, 449 test images" in said
    assert not stages(out, "train_network")  # nobody was asked
    assert not (out / "results.json").exists()
    assert len(list(folder.glob("*/*.png"))) == 80 + 10 + 449
    with (folder / "candidates" / "metadata.csv").open(newline="") as stream:
        own = [(line["file_name"], line["label"]) for line in csv.DictReader(stream)]
    assert sorted({label for _, label in own}) == [str(number) for number in range(10)]

    path = answer(folder, [str(number) for number in range(10)], probabilities)
    said = command("synthesize", *words, str(out), "--import", str(path))
    assert "cgan" in said
    assert (out / "report.html").is_file()
    assert any((out / name).is_file() for name in EXPORTED)
    found = read_json(out / "results.json")
    assert len(stages(out, "train_generator")) == len(stages(out, "show_generator")) == 1  # the GAN; its images
    direct = run.run(
        tiny(
            f"generator.source={folder / 'candidates'}",
            f"teacher.source={module(10)}:linear",
            "synthesis.subsampling=none",
        ),
        tmp_path / "direct",
    )
    (answered, images), (asked, expected) = columns(out, found), columns(tmp_path / "direct", direct)
    assert images == expected
    assert set(answered) == set(asked)
    for name in asked:
        np.testing.assert_allclose(answered[name].numpy(), asked[name].numpy(), rtol=1e-3, atol=1e-5)
    assert found["synthesis"]["kept"] == direct["synthesis"]["kept"] > 0
    assert found["teacher"]["test"] == pytest.approx(direct["teacher"]["test"])
    assert found["teacher"]["val"] == pytest.approx(direct["teacher"]["val"])
    of = {score["name"]: score["of"] for score in found["metrics"]["scores"]}["label score[teacher], %"]
    assert of["processed"]["value"] is not None


@pytest.mark.long
def test_scalars_there_and_back_with_nothing_said_of_the_test_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {"images": rng.integers(0, 256, (90, 16, 16), dtype=np.uint8), "labels": np.linspace(-20.0, 20.0, 90)}
    np.savez(tmp_path / "data.npz", **data)
    made = tiny(
        f"data.source={tmp_path / 'data.npz'}", "data.train_size=null", "data.unit=degrees", "seeds=[0,1]",
        "vary=everything", "ratio.features={kind: autoencoder, network: cnn8, steps: 3}",
    )  # fmt: skip
    folder, out = tmp_path / "images", tmp_path / "run"
    assert "wrote" in labelling_service.export(made, out, folder)
    files = sorted((folder / "candidates").glob("*.png"))
    assert len(files) == 72  # 1.25 * 40 / 0.7, rounded up

    def degrees(pixels: npt.NDArray[np.float32]) -> list[object]:
        return [f"{400.0 * (float(pixels.mean()) - 0.5):.9g}"]

    path = answer(folder, ["prediction"], degrees, skip="test")
    found = run.run(labelling_service.answered(made, path), out)
    assert found["teacher"]["values"] == []
    assert found["teacher"]["test"] is None
    assert found["teacher"]["val"] is not None
    assert any(re.search(r"predictions for 0 of \d+ test images", note) for note in found["notes"])
    assert not any("nothing to transfer" in warning for warning in found["warnings"])
    assert "| teacher | the teacher |" in table_text.style.as_markdown(found)
    render(out)
    assert len(stages(out, "make_images")) == 1 + 2  # the candidates, and what passed for each seed
    for made_by in found["artifacts"]["synthesis"].values():
        predicted = load_tensors(out / made_by / "columns.safetensors")[0]["prediction"]
        pixels = np.fromfile(out / made_by / "images.u8", np.uint8).reshape(-1, 256)
        assert len(pixels) == found["synthesis"]["kept"] > 0
        expected = np.clip(400.0 * (pixels.mean(axis=1) / 255.0 - 0.5), -20.0, 20.0)
        np.testing.assert_allclose(predicted.numpy(), expected, atol=1e-3)


@pytest.mark.long
def test_rows_that_match_outputs_learn_from_a_second_round(
    module: Callable[[int], str], command: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the same teacher as a function, but for the rounding of mixed images to bytes."""
    monkeypatch.setattr(main, "_write_page", lambda folder: folder / "report.html")  # which takes half of the time
    methods = "compare.methods=[nokd_longer, kd, fm, cgan+fm, mlkd]"
    few = ["student.fit.augment.views=1", "student.strong_augment.mixed_views=1", "metrics.generator=false"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(TINY))
    words = [str(tmp_path / "r.yaml"), methods, *few, "--quiet", "--out", str(tmp_path / "run")]
    folder = tmp_path / "images"
    command("synthesize", *words, "--export", str(folder), "--candidates", "80")
    path = answer(folder, [str(number) for number in range(10)], probabilities)
    said = command("synthesize", *words, "--import", str(path))
    assert "left out, because they need predictions of other images: kd, fm, cgan+fm, mlkd; for those" in said
    said = command("synthesize", *words, "--import", str(path), "--views")
    assert "views for kd, fm, cgan+fm;" in said
    files = sorted((folder / "views").glob("*.png"))
    assert f"{len(files)} views" in said
    # 60 views without a change, 3 batches of 16 mixed real images, and 3 of mixed real and generated ones
    assert 60 < len(files) <= 60 + 2 * 3 * 16
    answer(folder / "views", [str(number) for number in range(10)], probabilities)
    said = command("synthesize", *words, "--import", str(path))
    assert "other images: mlkd; for those" in said
    found = read_json(tmp_path / "run" / "results.json")
    direct = run.run(
        tiny(
            *few, "compare.methods=[nokd_longer, kd, fm, cgan+fm]", f"generator.source={folder / 'candidates'}",
            f"teacher.source={module(10)}:linear", "synthesis.subsampling=none",
        ),
        tmp_path / "direct",
    )  # fmt: skip
    assert [row["method"] for row in found["rows"]] == ["nokd_longer", "kd", "fm", "cgan+fm"]

    def weights(out: Path, results: dict[str, Any], name: str) -> torch.Tensor:
        folder = out / results["artifacts"]["students"][name][0]
        return torch.cat([t.flatten().float() for t in load_tensors(folder / "weights.safetensors")[0].values()])

    control = weights(tmp_path / "direct", direct, "nokd_longer")
    for name in ("kd", "fm", "cgan+fm"):
        expected = weights(tmp_path / "direct", direct, name)
        off = (weights(tmp_path / "run", found, name) - expected).norm()
        assert off < 0.05 * (control - expected).norm()


def test_views_are_refused_where_no_row_needs_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no row that needs views; rows that match outputs do, such as kd and fm"):
        labelling_service.export_views(tiny(), tmp_path / "run", tmp_path / "images" / "predictions.csv")
    with pytest.raises(UserError, match=r"is not a \.csv file in the folder that --export wrote"):
        labelling_service.export_views(
            tiny("compare.methods=[cgan,fm]"), tmp_path / "run", tmp_path / "images" / "predictions.csv"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_images_without_an_answer_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    labelling_service.export(tiny("metrics.generator=false"), tmp_path / "run", folder, 40)
    path = answer(folder, ["prediction"], lambda pixels: [3], skip="candidates/00000")  # ten of them
    with pytest.raises(UserError, match=r"10 of generator.source's 40 images have no prediction; needed: one for each"):
        run.run(labelling_service.answered(tiny(), path), tmp_path / "run")
    with pytest.raises(UserError, match="is there already; a new or empty folder is needed"):
        labelling_service.export(tiny(), tmp_path / "run", folder)
    path = answer(folder, ["prediction"], lambda pixels: [3])
    with pytest.raises(UserError, match=r"exported by a run on other labelled images, .* needed: that run's data"):
        run.run(labelling_service.answered(tiny("data.seed=1"), path), tmp_path / "run")
    stray = tmp_path / "predictions.csv"
    stray.write_text(path.read_text())
    with pytest.raises(UserError, match=r"is not a \.csv file in the folder that --export wrote, beside"):
        labelling_service.answered(tiny(), stray)


@pytest.mark.long
def test_a_split_that_is_answered_in_part_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    quick = tiny("metrics.generator=false", "compare={methods: [nokd_longer, cgan], ablation: true}")
    labelling_service.export(quick, tmp_path / "run", folder, 40)
    path = answer(folder, ["prediction"], lambda pixels: [3], skip="validation/000003")
    found = run.run(labelling_service.answered(quick, path), tmp_path / "run")
    assert found["teacher"]["val"] is None
    notes = [note for note in found["notes"] if "has predictions for" in note]
    assert notes == ["the teacher has predictions for 9 of 10 validation images, so it has no score there"]
    assert any("cgan_raw is the same as cgan_subsample" in note for note in found["notes"])
    assert len(stages(tmp_path / "run", "make_images")) == 1 + 2  # the candidates; raw and subsampled are one
    assert Path(read_recipe(tmp_path / "run")["teacher"]["source"]).is_absolute()


@pytest.mark.long
def test_a_folder_that_was_moved_is_the_same_teacher_and_generator(tmp_path: Path) -> None:
    quick = tiny("metrics.generator=false", "compare.methods=[nokd_longer, cgan]")
    labelling_service.export(quick, tmp_path / "run", tmp_path / "images", 40)
    path = answer(tmp_path / "images", ["prediction"], lambda pixels: [3])
    first = run.run(labelling_service.answered(quick, path), tmp_path / "run")
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    again = run.run(labelling_service.answered(quick, tmp_path / "elsewhere" / path.name), tmp_path / "run")
    assert again["artifacts"] == first["artifacts"]
    assert first["teacher"]["network"] == "predictions.csv"


@pytest.mark.long
def test_another_exports_files_have_other_names(tmp_path: Path) -> None:
    names = []
    for seed in (0, 1):
        folder = tmp_path / f"images{seed}"
        labelling_service.export(tiny(f"seeds=[{seed}]", "synthesis.subsampling=none"), tmp_path / "run", folder, 40)
        names.append({file.name for file in (folder / "candidates").glob("*.png")})
    assert len(names[0]) == len(names[1]) == 40
    assert not names[0] & names[1]


def test_an_export_without_a_ratio_trains_no_teacher() -> None:
    features = NOKDFeatures()
    recipe = tiny("synthesis.subsampling=none")
    recipe = recipe.model_copy(update={"ratio": recipe.ratio.model_copy(update={"features": features})})
    titled = SimpleNamespace(titled=lambda _: None)
    this_run: Any = SimpleNamespace(recipe=recipe, black_box=None, store=titled, nokd=lambda seed: seed)
    assert ratio_features(this_run, 3, stand_in=True) == StoredNetwork(3)
    assert ratio_features(this_run, 3) is None


def test_candidates_that_lack_a_class_are_refused_because_they_could_not_be_imported() -> None:
    task, images = Classification(("a", "b", "c")), torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    labelling_service.check_each_class(ImageSet(images, torch.tensor([0, 1, 2])), task)
    labelling_service.check_each_class(ImageSet(images, torch.tensor([0.5, 1.0, 1.0])), Regression(0.0, 9.0))
    with pytest.raises(UserError, match=r"of 3 candidates none is of class b; needed: some of every class"):
        labelling_service.check_each_class(ImageSet(images, torch.tensor([0, 2, 2])), task)


def test_candidates_of_scalars_are_spare_images_of_the_labels_that_are_asked_for() -> None:
    labels = ScalarLabels(torch.linspace(0, 1, 90), ScalarLabelSettings())
    asked = SynthesisSettings(images=40)
    exported = labels.plan(labelling_service.with_spares(asked).model_copy(update={"images": 72}))
    assert torch.equal(exported.targets, labels.plan(asked).targets)
    assert exported.quota.tolist().count(2) == 72 - 40
    imported = labels.plan(asked, held=(exported.targets, exported.quota))
    assert bool((exported.quota > imported.quota).any())
    even = SynthesisSettings(images=4000)
    assert labelling_service.with_spares(even) == even


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ratio.vicinity_gaps=6", "ratio.vicinity_gaps needs teacher outputs for images before their export"),
        ("generator.guidance=on", "generator.guidance needs the gradient of a teacher, which a service has not"),
    ],
)
def test_what_asks_the_teacher_earlier_is_refused_before_anything_is_written(
    tmp_path: Path, change: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        labelling_service.export(tiny(change), tmp_path / "run", tmp_path / "images")
    assert not list(tmp_path.iterdir())


def test_images_of_a_smaller_generator_are_imported_too(tmp_path: Path) -> None:
    (tmp_path / "candidates").mkdir()
    (tmp_path / "predictions.csv").touch()
    made = labelling_service.answered(tiny("generator.size=16", "data.size=32"), tmp_path / "predictions.csv")
    assert preflight.resolve(made).generator.source == str(tmp_path / "candidates")


def test_rows_that_ask_about_further_images_are_left_out_and_named() -> None:
    kept, left_out = labelling_service.served(
        tiny("compare={methods: [nokd, kd, cgan, cgan+pkt, pseudo], ablation: true}")
    )
    assert kept.compare.methods == ("nokd", "cgan")
    assert kept.compare.ablation
    assert left_out == ["kd", "cgan+pkt", "pseudo"]
    with pytest.raises(UserError, match="holds no row that is possible with a teacher that labels files"):
        labelling_service.served(tiny("compare.methods=[kd]"))


def test_the_labelled_images_are_used_where_the_autopilot_would_choose() -> None:
    possible, left_out = labelling_service.served(tiny("compare.methods=auto"))
    assert possible.compare.methods == ("nokd_longer", "augment", "cgan")
    assert "cgan_kd" in left_out


def test_one_of_both_options_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (
        [],
        ["--export", "a", "--import", "b"],
        ["--import", "b", "--candidates", "3"],
        ["--export", "a", "--views"],
    ):
        monkeypatch.setattr(sys, "argv", ["cgankd", "synthesize", "digits", *words])
        with pytest.raises(SystemExit) as stop:
            main.main()
        assert stop.value.code == 2
