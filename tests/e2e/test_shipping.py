"""From a finished run to what leaves it: files of the student, predictions, generated images."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import BARS, Said, environment, process, write_bars
from pages import code
from PIL import ExifTags, Image
from torch.utils.data import TensorDataset

import cgankd
from cgankd import tasks
from cgankd.config import recipe
from cgankd.core import profiling
from cgankd.data import sources
from cgankd.gan.adapters import open_source
from cgankd.nets import weights, zoo
from cgankd.shipping.export import export_after_run

pytest.importorskip("onnxruntime")
Typed = Callable[..., Said]

# A program of a user who has onnxruntime and numpy, and no cgankd and no torch.
ELSEWHERE = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["cgankd"])
images = np.load(sys.argv[2])
if about["input"]["type"] == "float32":
    images = images.astype(np.float32) / np.float32(255)
(answers,) = session.run([about["output"]["name"]], {about["input"]["name"]: images})
np.save(sys.argv[3], answers)
assert not {"torch", "cgankd"} & set(sys.modules)
print(json.dumps(about))
"""


def asked_elsewhere(file: Path, images: torch.Tensor, folder: Path) -> tuple[dict, np.ndarray]:
    np.save(folder / "images.npy", images.numpy())
    words = [sys.executable, "-c", ELSEWHERE, str(file), str(folder / "images.npy"), str(folder / "answers.npy")]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True, cwd=folder)
    return json.loads(done.stdout), np.load(folder / "answers.npy")


@pytest.fixture
def out(finished: tuple[Path, Said], tiny: Path) -> Path:
    """A copy of the finished folder, beside where commands are typed."""
    return Path(shutil.copytree(finished[0], tiny.parent / "out"))


def student_of(out: Path, row: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """The student of a row as the docs say how to load it, and the test images."""
    results = json.loads((out / "results.json").read_text())
    splits = sources.load(recipe.load(str(out / "recipe.yaml")).data)
    width, outputs = splits.test.channels, splits.task.num_outputs
    network = zoo.create("cnn8", width, outputs, splits.test.size)
    weights.load_weights(network, out / results["artifacts"]["students"][row][0] / "weights.safetensors")
    return network.eval(), splits.test.images


def test_a_run_names_its_best_student_by_validation_and_writes_it(finished: tuple[Path, Said], tmp_path: Path) -> None:
    out, said = finished
    results = json.loads((out / "results.json").read_text())
    best = max(results["rows"], key=lambda row: (row["val"]["mean"], -row["val"]["losses"][0]))
    assert results["best"] == {"row": best["method"], "seed": 0, "val": best["val"]["mean"], "test": best["mean"]}
    generated = f" and {best['fake_images']:,} generated ones" if best["fake_images"] else ""
    trained_on = f"{best['real_images']:,} labelled images{generated}"
    written = f"student.onnx: row {best['method']}, seed 0, cnn8, trained on {trained_on}; validation accuracy "
    assert written in said.out
    assert "it gives what the student gives" in said.out
    network, images = student_of(out, best["method"])
    about, answers = asked_elsewhere(out / "student.onnx", images, tmp_path)
    with torch.no_grad():
        expected = network(images.float() / 255)
    assert answers == pytest.approx(expected.numpy(), abs=1e-4)
    assert about["output"]["classes"] == [str(digit) for digit in range(10)]
    assert about["input"]["shape"] == ["batch", 1, 16, 16]
    assert (about["input"]["type"], about["input"]["range"]) == ("uint8", [0, 255])
    assert (about["student"]["row"], about["student"]["trained_on"]) == (best["method"], trained_on)
    assert about["student"]["test"] == pytest.approx(best["mean"])


def test_any_row_leaves_in_any_format(out: Path, typed: Typed, tmp_path: Path) -> None:
    network, images = student_of(out, "cgan")
    with torch.no_grad():
        expected = network(images.float() / 255)
    said = typed("export", "out", "--row", "cgan", "--float", "--out", "a.onnx")
    assert said.code == 0, said.err
    about, answers = asked_elsewhere(tmp_path / "a.onnx", images, tmp_path)
    assert answers == pytest.approx(expected.numpy(), abs=1e-4)
    assert (about["input"]["type"], about["student"]["row"]) == ("float32", "cgan")

    assert typed("export", "out", "--row", "cgan", "--to", "torch-export", "--out", "a.pt2").code == 0
    program = torch.export.load(tmp_path / "a.pt2").module()
    for count in (1, 7):
        assert torch.allclose(program(images[:count]), expected[:count], atol=1e-5)

    assert typed("export", "out", "--row", "cgan", "--to", "safetensors", "--out", "a.safetensors").code == 0
    fresh = zoo.create("cnn8", 1, 10, (16, 16)).eval()
    weights.load_weights(fresh, tmp_path / "a.safetensors")
    with torch.no_grad():
        assert torch.equal(fresh(images.float() / 255), expected)


def test_a_run_ends_well_where_its_student_is_no_onnx_file(
    out: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object, **more: object) -> None:
        raise RuntimeError("no such operator")

    (out / "student.onnx").unlink()
    monkeypatch.setattr(torch.onnx, "export", fail)
    sentence = typed("export", "out").sentence()
    assert "cnn8 can't be written as onnx (RuntimeError: no such operator); allowed: --to torch-export, saf" in sentence
    exported = export_after_run(out)
    assert exported.path == out / "student.safetensors"
    assert "no such operator" in exported.note
    assert exported.path.is_file()
    assert not (out / "student.onnx").exists()


def test_eight_bits_come_with_their_score(out: Path, typed: Typed, tmp_path: Path) -> None:
    said = typed("export", "out", "--row", "nokd_longer", "--int8", "--out", "a.onnx")
    assert said.code == 0, said.err
    _, images = student_of(out, "nokd_longer")
    labels = sources.load(recipe.load(str(out / "recipe.yaml")).data).test.labels.numpy()
    _, answers = asked_elsewhere(tmp_path / "a-int8.onnx", images, tmp_path)
    accuracy = 100 * (answers.argmax(axis=1) == labels).mean()
    assert f"a-int8.onnx: accuracy {accuracy:.4g} %" in said.out
    assert (tmp_path / "a-int8.onnx").stat().st_size < 0.6 * (tmp_path / "a.onnx").stat().st_size


def test_predictions_of_run_and_file_agree_and_images_are_brought_to_the_size(
    out: Path, typed: Typed, tmp_path: Path
) -> None:
    network, images = student_of(out, "kd")
    for number, image in enumerate(images[:5]):
        grey = Image.fromarray(image[0].numpy())
        path = tmp_path / "pictures" / f"part{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (grey.convert("RGB") if number % 2 else grey).save(path)  # colour becomes grey, as on import
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    assert typed("export", "out", "--row", "kd", "--out", "kd.onnx").code == 0
    for model in (["out", "--row", "kd"], ["kd.onnx"]):
        said = typed("predict", model[0], "pictures", "--to", "json", *model[1:])
        assert said.code == 0, said.err
        records = json.loads(said.out)
        assert [record["file_name"] for record in records] == [
            f"pictures/part{part}/{number}.png" for part, number in ((0, 0), (0, 2), (0, 4), (1, 1), (1, 3))
        ]
        with torch.no_grad():
            probabilities = network(images[[0, 2, 4, 1, 3]].float() / 255).softmax(dim=1)
        for record, row in zip(records, probabilities, strict=True):
            assert record["prediction"] == str(int(row.argmax()))
            assert record["probabilities"] == pytest.approx({str(k): float(p) for k, p in enumerate(row)}, abs=1e-4)
    said = typed("predict", "kd.onnx", "pictures/part0/0.png", "--out", "a.csv")
    assert said.code == 0
    (line,) = csv.DictReader((tmp_path / "a.csv").open())
    assert line["prediction"] == records[0]["prediction"]
    csv_text, as_json = (tmp_path / "a.csv").read_text(), ["kd.onnx", "pictures/part0/0.png", "--to", "json"]
    for words, kind in {("--out", "b.json"): "json", ("--out", "b.txt", "--to", "json"): "json",
                        ("--out", "c.json", "--to", "csv"): "csv"}.items():  # fmt: skip
        assert typed("predict", "kd.onnx", "pictures/part0/0.png", *words).code == 0
        written = (tmp_path / words[1]).read_text()
        assert written == (typed("predict", *as_json).out if kind == "json" else csv_text), words


def test_the_lines_of_the_docs_answer_for_a_photograph_as_predict_does(
    out: Path, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    photo = Image.fromarray(pixels).resize((57, 40), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    photo.save(tmp_path / "photo.jpg", exif=turned)
    (tmp_path / "runs").mkdir()
    out.rename(tmp_path / "runs" / "mine")
    names: dict[str, Any] = {}
    exec("".join(code("shipping.md", "What does the file take and give?")), names)
    expected = json.loads(typed("predict", "runs/mine", "photo.jpg", "--to", "json").out)[0]["probabilities"]
    probabilities = torch.from_numpy(names["answers"]).softmax(dim=1)[0]
    assert {str(digit): float(p) for digit, p in enumerate(probabilities)} == pytest.approx(expected, abs=1e-4)


def test_another_row_has_a_file_of_its_own(out: Path, typed: Typed) -> None:
    best = json.loads((out / "results.json").read_text())["best"]["row"]
    other = next(row for row in ("kd", "cgan_kd") if row != best)
    shipped = (out / "student.onnx").read_bytes()
    assert typed("export", "out", "--row", other).out.startswith(f"out/student-{other}.onnx: row {other}, seed 0")
    assert (out / "student.onnx").read_bytes() == shipped


def test_a_recipe_that_is_gone_is_named(out: Path, typed: Typed) -> None:
    (out / "recipe.yaml").unlink()
    said = typed("export", "out")
    assert said.code == 2
    assert "out holds no recipe.yaml; the command of the run writes it again" in said.err


def test_the_recipe_beside_results_is_the_one_that_made_them(out: Path, tiny: Path, typed: Typed) -> None:
    recipe_text = (out / "recipe.yaml").read_text()
    words = ["run", tiny.name, "compare.ablation=true", "student.network=cnn16", "--out", "out", "--quiet"]
    assert typed(*words, "--max-minutes", "0").code == 75
    assert (out / "recipe.yaml").read_text() == recipe_text
    said = typed("status", "out")
    assert said.out.splitlines()[-1] == "out/results.json holds the results of an earlier run, until this one ends"


def test_generated_images_come_from_the_checkpoint_alone(out: Path, typed: Typed, tmp_path: Path) -> None:
    shutil.rmtree(out / "cache")
    assert typed("generate", "out", "--label", "3", "--count", "10", "--out", "grid.png").code == 0
    assert Image.open(tmp_path / "grid.png").size == (4 * 18 - 2, 3 * 18 - 2)
    assert typed("generate", "out", "--label", "3", "--count", "10", "--out", "threes").code == 0
    lines = list(csv.DictReader((tmp_path / "threes" / "metadata.csv").open()))
    assert [line["label"] for line in lines] == ["3"] * 10
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert (np.asarray(Image.open(tmp_path / "threes" / "00001.png")) == grid[:16, 18:34]).all()
    assert typed("generate", "out", "--label", "3", "--count", "2", "--seed", "1", "--out", "other").code == 0
    one, other = (np.asarray(Image.open(tmp_path / name / "00000.png")) for name in ("threes", "other"))
    assert (one != other).any()


def test_bench_says_what_a_student_costs(
    out: Path, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "STATUS", tmp_path / "status")
    profiling.STATUS.write_text("VmPeak:\t 9000000 kB\nVmHWM:\t  500000 kB\n")
    facts = json.loads(typed("bench", "out", "--json").out)
    assert facts["peak memory of this process, MB"] == 512.0  # Linux counts kibibytes
    assert facts["parameters"] == sum(p.numel() for p in zoo.create("cnn8", 1, 10, (16, 16)).parameters())
    assert facts["megaflops"] > 0.1
    assert facts["pytorch"]["batch 32, ms"] > facts["pytorch"]["batch 1, ms"] > 0
    assert facts["student.onnx"]["file, kB"] == (out / "student.onnx").stat().st_size / 1e3
    assert "batch 1, ms" in typed("bench", "out/student.onnx").out
    refused = typed("bench", "out/student.onnx", "--row", "kd")
    assert refused.code == 2
    assert "--row and --seed choose a student of a run" in refused.err
    other = next(row for row in ("kd", "cgan_kd") if row != facts["student"]["row"])
    assert not any(name.endswith(".onnx") for name in json.loads(typed("bench", "out", "--row", other, "--json").out))


def test_bench_measures_no_file_of_an_earlier_network(out: Path, typed: Typed) -> None:
    results = json.loads((out / "results.json").read_text())
    next(row for row in results["rows"] if row["method"] == results["best"]["row"])["network"] = "cnn16"
    (out / "results.json").write_text(json.dumps(results))
    assert "student.onnx" not in json.loads(typed("bench", "out", "--json").out)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (("source: digits", "source: gone"), "the data set of the run can't be read (data.source 'gone'"),
        (("train_size: 100", "train_size: 90"), "the data set has changed since the run"),
        (("size: null", "size: 20"), "the data set has changed since the run"),
    ],
)
def test_without_its_data_set_a_student_leaves_but_gets_no_score_of_other_images(
    change: tuple[str, str], note: str, out: Path, typed: Typed
) -> None:
    text = (out / "recipe.yaml").read_text()
    assert change[0] in text
    (out / "recipe.yaml").write_text(text.replace(*change))
    (out / "student.onnx").unlink()
    refused = typed("export", "out", "--int8")
    assert f"--int8 needs training and test images of the run, but {note}" in refused.sentence()
    assert not (out / "student.onnx").exists()
    said = typed("export", "out")
    assert said.code == 0, said.err
    assert note in said.out
    assert "labelled images of the run: it gives what the student gives" in said.out
    assert "its own test" not in said.out


def test_a_score_of_other_test_images_is_not_shown(out: Path, typed: Typed) -> None:
    results = json.loads((out / "results.json").read_text())
    (out / "results.json").write_text(json.dumps({**results, "test_images": "other"}))
    said = typed("export", "out")
    assert "so its test images are others" in said.out
    assert "its own test" not in said.out


def test_generated_images_leave_with_a_card_and_come_back_as_a_generator(
    out: Path, typed: Typed, tmp_path: Path
) -> None:
    said = typed("export-images", "out", "--out", "fakes")
    assert said.code == 0, said.err
    results = json.loads((out / "results.json").read_text())
    kept = results["synthesis"]["kept"]
    assert f"fakes: {kept} generated images of row cgan, and README.md" in said.out
    assert f"near copies of training images: 0 of {kept} compared" in said.out
    card = (tmp_path / "fakes" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["task_categories"] == ["image-classification"]
    assert header["size_categories"] == ["n<1K"]
    for words in ("| generator | sngan, trained here for 12 steps |", "| row of the table | cgan |", "100 of digits",
                  f"| generated | {results['synthesis']['generated']} |", "the 0.9-quantile of the teacher's error",
                  "| 3 | 20 |", "**Near copies: 0 (0.0%)**", "cgankd and its authors claim no rights"):  # fmt: skip
        assert words in card, words
    width, height = Image.open(tmp_path / "fakes" / "nearest.png").size
    assert width == 840
    assert height in {419, 420}  # older versions of matplotlib round down
    said = typed("data", "fakes")
    assert said.code == 0, said.err
    assert "fakes: classification, 16x16 pixels, 1 channel(s)" in said.out
    task = tasks.from_json(results["task_settings"])
    sampler = open_source(str(tmp_path / "fakes"), task, 1, (16, 16))
    assert sampler.held is not None
    assert int(sampler.held[1].sum()) == kept


def test_generated_images_go_to_an_address_and_come_back_from_it(
    out: Path, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "home"))
    assert typed("export-images", "out", "--out", "fakes").code == 0
    address = (tmp_path / "far" / "fakes").as_uri()
    said = typed("export-images", "out", "--out", address)
    assert said.code == 0, said.err
    assert f"{address}: 200 generated images of row cgan, and README.md" in said.out
    assert f"{address}/nearest.png shows training images" in said.out
    task = tasks.from_json(json.loads((out / "results.json").read_text())["task_settings"])
    own, far = (open_source(source, task, 1, (16, 16)) for source in (str(tmp_path / "fakes"), address))
    assert far.content_key == own.content_key
    again = typed("export-images", "out", "--out", address)
    assert again.code == 2
    assert f"--out {address} is there already; a new or empty address is needed" in again.err
    said = typed("data", address)
    assert said.code == 0, said.err
    assert "fakes: classification, 16x16 pixels, 1 channel(s)" in said.out


def test_without_its_data_set_the_images_leave_and_the_card_says_what_is_missing(
    out: Path, typed: Typed, tmp_path: Path
) -> None:
    text = (out / "recipe.yaml").read_text()
    (out / "recipe.yaml").write_text(text.replace("source: digits", "source: gone"))
    said = typed("export-images", "out", "--to", "hdf5", "--row", "cgan_raw", "--out", "fakes")
    assert "near copies were not counted: the data set of the run can't be read (data.source 'gone'" in said.out
    card = (tmp_path / "fakes" / "README.md").read_text()
    assert "Not measured: the data set of the run can't be read" in card
    assert "| accepted by the density ratio | not subsampled |" in card
    assert "| cut-off of the filter | no filter |" in card
    assert sorted(path.name for path in (tmp_path / "fakes").iterdir()) == ["README.md", "images.h5"]
    (out / "recipe.yaml").write_text(text.replace("train_size: 100", "train_size: 90"))
    said = typed("export-images", "out", "--out", "more")
    assert "the data set has changed since the run, so its images are not those of the training" in said.out


def test_a_loop_of_ones_own_learns_from_real_and_generated_images(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    out.rename(tmp_path / "runs" / "mine")
    blocks = code("your-own.md", "How do I use the generated images in my own training loop?")
    assert len(blocks) == 2
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    before = student[1].weight.clone()
    names: dict[str, Any] = {
        "real": TensorDataset(torch.rand(20, 1, 16, 16), torch.arange(20) % 10),
        "student": student,
    }
    exec("".join(blocks), names)
    fakes = cgankd.open_fakes("runs/mine")
    assert len(names["data"]) == 20 + len(fakes)
    image, label = names["fakes"][7]
    assert torch.equal(image, fakes.images[7].float() / 255)
    assert (label.dtype, int(label)) == (torch.int64, int(fakes.labels[7]))
    assert fakes.names[3] == "3"
    assert not torch.equal(student[1].weight, before)
    with pytest.raises(cgankd.UserError, match="has no generated images of a row 'kd'"):
        cgankd.open_fakes("runs/mine", "kd")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "nowhere"], "nowhere does not exist; needed: the --out folder of a run"),
        (["export", "out", "--row", "kdd"], "out has no row 'kdd' (did you mean 'kd'?); rows: nokd, nokd_longer, kd,"),
        (["export", "out", "--seed", "7"], "out has no seed 7; seeds: 0"),
        (["export", "out", "--to", "tflite"], "--to tflite: allowed are onnx, torch-export, safetensors"),
        (["export", "out", "--int8", "--to", "safetensors"], "--int8 makes an ONNX file, not safetensors"),
        (["export", "out", "--out", "a.txt"], "--out a.txt: a file of onnx ends in .onnx"),
        (["predict", "out", "nowhere.png"], "nowhere.png is not there; needed: image files"),
        (["predict", "nowhere.onnx", "tiny.yaml"], "nowhere.onnx does not exist; needed: the --out folder of a run, "),
        (["predict", "out", "tiny.yaml"], "tiny.yaml: not readable as an image"),
        (["predict", "out", "tiny.yaml", "--skip-bad"], "tiny.yaml: not readable as an image"),
        (["predict", "out", "out", "--to", "xml"], "--to xml: allowed are table, csv, json"),
        (["generate", "out", "--label", "x"], "--label 'x'"),
        (
            ["export-images", "out", "--out", "x", "--to", "zip"],
            "--to zip: allowed are imagefolder, parquet, webdataset, hdf5",
        ),
        (
            ["export-images", "out", "--out", "x", "--row", "kd"],
            "out has no generated images of a row 'kd'; rows: cgan",
        ),
        (["export-images", "out", "--out", "out"], "--out out is there already; a new or empty folder is needed"),
    ],
)
def test_what_is_not_allowed_is_answered_in_a_sentence(
    words: list[str], sentence: str, out: Path, typed: Typed
) -> None:
    (out / "student.onnx").unlink()
    assert sentence in typed(*words).sentence()
    assert not (out / "student.onnx").exists()


@pytest.mark.long
@pytest.mark.xdist_group("regression")
def test_a_scalar_leaves_in_the_labels_own_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bars(tmp_path / "bars")
    (tmp_path / "mine.yaml").write_text(BARS)
    assert process("run", "mine.yaml", "compare.methods=[kd]", "--out", "out", cwd=tmp_path).code == 0
    out = tmp_path / "out"
    best = json.loads((out / "results.json").read_text())["best"]["row"]
    network, images = student_of(out, best)
    about, answers = asked_elsewhere(out / "student.onnx", images, tmp_path)
    low, high = about["output"]["range"]
    with torch.no_grad():
        expected = low + (high - low) * network(images.float() / 255).squeeze(1).clamp(0, 1)
    assert answers == pytest.approx(expected.numpy(), abs=1e-2)
    assert answers.std() > 1
    assert about["output"]["unit"] == "degrees"
    said = process("predict", "out/student.onnx", "bars/000.png", "--to", "csv", cwd=tmp_path)
    assert said.out.splitlines()[0] == 'file_name,"prediction, degrees"'
    assert low <= float(said.out.splitlines()[1].split(",")[1]) <= high
