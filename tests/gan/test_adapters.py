"""What stands in the GAN's place: functions, ONNX files and stored images, alone and on the road."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn

from cgankd.api import Distiller
from cgankd.config import recipe
from cgankd.core.errors import UserError
from cgankd.data.imageset import ImageSet
from cgankd.gan.adapters import CallableSampler, OnnxSampler, StoredImages, open_source
from cgankd.gan.generator import UNBOUNDED, GanSampler, Sampler, latents
from cgankd.pipeline import run
from cgankd.tasks import Classification, Regression, Task

CLASSES = Classification(("a", "b", "c"))
DEGREES = Regression(-80.0, 80.0, "degrees")


def flat(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
    """16x16 images of one grey: the label's."""
    grey = (40 * targets.float() + indices % 7).round()[:, None, None, None]
    return grey.expand(-1, 1, 16, 16).to(torch.uint8)


# --- functions ----------------------------------------------------------------------------------------------------

FUNCTIONS = """
import torch
def good(targets, indices, seed):
    return (targets.float() * 9)[:, None, None, None].expand(-1, 1, 16, 16).to(torch.uint8)
def floats(targets, indices, seed):
    return torch.zeros(len(targets), 1, 16, 16)
def large(targets, indices, seed):
    return torch.zeros(len(targets), 3, 32, 32, dtype=torch.uint8)
def array(targets, indices, seed):
    return good(targets, indices, seed).numpy()
def broken(targets, indices, seed):
    raise RuntimeError("out of paint")
def seeded_per_call(targets, indices, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (len(targets), 1, 16, 16), generator=generator, dtype=torch.uint8)
def unseeded(targets, indices, seed):
    return torch.randint(0, 256, (len(targets), 1, 16, 16), dtype=torch.uint8)
def in_place(targets, indices, seed):
    return good(targets.mul_(90), indices, seed)
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_generators.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_generators", raising=False)
    return "my_generators"


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
def test_a_function_by_name(functions: str, task: Task) -> None:
    sampler = open_source(f"{functions}:good", task, 1, (16, 16))
    targets = task.to_target(task.from_target(torch.tensor([0.0, 1.0])))
    assert sampler.sample(targets, torch.arange(2), 0)[:, 0, 0, 0].tolist() == [0, 9]
    assert sampler.available(targets).tolist() == [UNBOUNDED, UNBOUNDED]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("floats", r"gives torch.float32 \[2, 1, 16, 16\]; needed: uint8 \[2, 1, 16, 16\]"),
        ("large", r"gives torch.uint8 \[2, 3, 32, 32\]; needed: uint8 \[2, 1, 16, 16\]"),
        ("array", r"gives ndarray; needed: a tensor uint8 \[2, 1, 16, 16\]"),
        ("broken", r"generator my_generators:broken: drawing 2 images failed \(RuntimeError: out of paint\)"),
        (
            "seeded_per_call",
            r"other images for the same \(target, index, seed\) in another order; needed: the same image",
        ),
        ("unseeded", r"other images for the same \(target, index, seed\)"),
        ("missing", r"module 'my_generators' has no function 'missing'"),
    ],
)
def test_functions_that_are_refused(functions: str, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_source(f"{functions}:{name}", CLASSES, 1, (16, 16))


def test_a_function_may_change_what_it_is_given(functions: str) -> None:
    targets = torch.tensor([0.25, 0.5])
    open_source(f"{functions}:in_place", DEGREES, 1, (16, 16)).sample(targets, torch.arange(2), 0)
    assert targets.tolist() == [0.25, 0.5]  # else the teacher's error would be computed against other labels


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no images")
    for source, words in [
        ("no_such_module_at_all:f", "can't be imported"),
        (str(tmp_path / "none.onnx"), "is not there; allowed: module:function"),
        (str(tmp_path / "notes.txt"), "is a file of another kind; allowed: module:function"),
        (str(tmp_path / "none.npz"), "does not exist; allowed: a folder"),
        ("fashion", "is not there; allowed"),  # real images are no generator
    ]:
        with pytest.raises(UserError, match=words):
            open_source(source, CLASSES, 1, (16, 16))


# --- ONNX ---------------------------------------------------------------------------------------------------------


class Drawn(nn.Module):
    """The network that :func:`onnx_file` writes: tanh(z W + label's row) as images; label E, or y V."""

    def __init__(self, latent: int, shape: tuple[int, int, int], classes: bool) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.pixels, self.shape, self.classes = int(np.prod(shape)), shape, classes
        self.w = rng.normal(size=(latent, self.pixels)).astype(np.float32) * 0.3
        self.e = rng.normal(size=(3 if classes else 1, self.pixels)).astype(np.float32)

    def forward(self, z: Tensor, targets: Tensor) -> Tensor:
        label = torch.from_numpy(self.e)
        label = label[targets] if self.classes else targets[:, None] * label
        return torch.tanh(z @ torch.from_numpy(self.w) + label).view(-1, *self.shape)


def onnx_file(
    path: Path,
    *,
    classes: bool = True,
    shape: tuple[int, int, int] = (1, 16, 16),
    uint8: bool = False,
    batch: Any = "B",
    z: Any = 6,
) -> Drawn:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    drawn = Drawn(6, shape, classes)
    constants = {
        "w": drawn.w, "e": drawn.e, "shape": np.array([-1, *shape]), "last": np.array([1]),
        "one": np.float32(1), "half": np.float32(127.5),
    }  # fmt: skip
    # Inputs named as their makers please, the label first: they are told apart by their shapes.
    label_type = kinds.INT64 if classes else kinds.FLOAT
    nodes = [helper.make_node("MatMul", ["noise", "w"], ["zw"])]
    if classes:
        nodes += [helper.make_node("Gather", ["e", "what"], ["row"], axis=0)]
    else:
        nodes += [
            helper.make_node("Unsqueeze", ["what", "last"], ["column"]),
            helper.make_node("MatMul", ["column", "e"], ["row"]),
        ]
    nodes += [
        helper.make_node("Add", ["zw", "row"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["floats"]),
    ]
    if uint8:
        nodes += [
            helper.make_node("Add", ["floats", "one"], ["up"]),
            helper.make_node("Mul", ["up", "half"], ["wide"]),
            helper.make_node("Round", ["wide"], ["round"]),
            helper.make_node("Cast", ["round"], ["images"], to=kinds.UINT8),
        ]
    output = helper.make_tensor_value_info(
        "images" if uint8 else "floats", kinds.UINT8 if uint8 else kinds.FLOAT, [batch, *shape]
    )
    graph = helper.make_graph(
        nodes,
        "generator",
        [
            helper.make_tensor_value_info("what", label_type, [batch]),
            helper.make_tensor_value_info("noise", kinds.FLOAT, [batch, z]),
        ],
        [output],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return drawn


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
@pytest.mark.parametrize("uint8", [False, True])
def test_an_onnx_file_draws_what_the_same_network_here_draws(
    tmp_path: Path, task: Task, uint8: bool, fabric: Fabric
) -> None:
    path = tmp_path / "g.onnx"
    drawn = onnx_file(path, classes=not task.continuous, shape=(3, 16, 20), uint8=uint8)
    sampler = open_source(str(path), task, 3, (16, 20))
    targets = torch.rand(9) if task.continuous else torch.arange(9) % 3
    indices = torch.arange(9) + 4
    found = sampler.sample(targets, indices, 7)
    trained = GanSampler(drawn, 6, fabric)  # its z are those of a trained GAN
    assert (found.int() - trained.sample(targets, indices, 7).int()).abs().max() <= 1
    assert found.float().std() > 20
    alone = torch.cat([sampler.sample(t[None], j[None], 7) for t, j in zip(targets, indices, strict=True)])
    assert (alone.int() - found.int()).abs().max() <= 1
    assert not torch.equal(sampler.sample(targets, indices, 8), found)


@pytest.mark.parametrize(
    ("made", "task", "words"),
    [
        ({"shape": (1, 16, 20)}, CLASSES, r"gives torch.uint8 \[2, 1, 16, 20\]; needed: uint8 \[2, 1, 16, 16\]"),
        ({"batch": 4}, CLASSES, r"has inputs what tensor\(int64\) \[4\], noise tensor\(float\) \[4, 6\]; needed"),
        ({"z": "Z"}, CLASSES, r"B free and Z a number"),
        ({}, DEGREES, r"label input is int64, for classes; scalar labels need float32"),
    ],
)
def test_onnx_files_that_are_refused(tmp_path: Path, made: dict[str, Any], task: Task, words: str) -> None:
    onnx_file(tmp_path / "g.onnx", **made)
    with pytest.raises(UserError, match=words):
        open_source(str(tmp_path / "g.onnx"), task, 1, (16, 16))


def test_what_is_no_onnx_file_at_all(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "g.onnx").write_bytes(b"not a network")
    with pytest.raises(
        UserError, match=r"g\.onnx: is no ONNX file, or a part of one \(13 bytes\); needed: .* export write it$"
    ):
        open_source(str(tmp_path / "g.onnx"), CLASSES, 1, (16, 16))


def test_without_onnxruntime_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime: pip install 'cgankd\[export\]'"):
        OnnxSampler(tmp_path / "g.onnx", (1, 16, 16))


# --- stored images ------------------------------------------------------------------------------------------------


def numbered(labels: Tensor, task: Task) -> StoredImages:
    """Images whose first two pixels are their row."""
    images = torch.zeros(len(labels), 1, 16, 16, dtype=torch.uint8)
    rows = torch.arange(len(labels))
    images[:, 0, 0, 0], images[:, 0, 0, 1] = rows // 256, rows % 256
    return StoredImages(ImageSet(images, labels), task)


def rows_of(images: Tensor) -> Tensor:
    return images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1].long()


def test_a_class_gives_each_of_its_images_once_and_then_again() -> None:
    labels = torch.tensor([2, 0, 1, 0, 0, 2, 0, 1])
    stored = numbered(labels, CLASSES)
    assert stored.targets.tolist() == [0, 1, 2]
    assert stored.counts.tolist() == stored.available(torch.arange(3)).tolist() == [4, 2, 2]
    for label in range(3):
        count = int((labels == label).sum())
        found = rows_of(stored.sample(torch.full((2 * count,), label), torch.arange(2 * count), 5))
        assert sorted(found[:count].tolist()) == (labels == label).nonzero().squeeze(1).tolist()
        assert torch.equal(found[count:], found[:count])


def test_the_seed_decides_the_order_and_the_batch_does_not() -> None:
    stored = numbered(torch.arange(900) % 3, CLASSES)
    targets, indices = torch.arange(300) % 3, torch.arange(300) // 3
    found = rows_of(stored.sample(targets, indices, 1))
    assert len(found.unique()) == 300
    order = torch.randperm(300)
    assert torch.equal(rows_of(stored.sample(targets[order], indices[order], 1)), found[order])
    assert (rows_of(stored.sample(targets, indices, 2)) != found).float().mean() > 0.95


@pytest.mark.parametrize("ties", [False, True])
def test_a_scalar_gives_the_nearest_images_one_after_the_other(ties: bool) -> None:
    labels = torch.rand(60, generator=torch.Generator().manual_seed(0)) * 160 - 80
    if ties:
        labels = (labels / 20).round() * 20
    stored = numbered(labels, DEGREES)
    own = DEGREES.to_target(labels)
    for target in [0.0, 0.3, 0.5, 0.77, 1.0]:
        found = rows_of(stored.sample(torch.full((60,), target), torch.arange(60), 3))
        assert len(found.unique()) == 60
        distance = (own[found] - target).abs()
        assert torch.equal(distance, distance.sort().values)
        again = rows_of(stored.sample(torch.full((2,), target), torch.tensor([60, 61]), 3))
        assert torch.equal(again, found[:2])
    if ties:  # among equal labels the seed decides
        orders = [rows_of(stored.sample(torch.full((10,), 0.5), torch.arange(10), seed)) for seed in (3, 4)]
        assert not torch.equal(*orders)


def test_available_counts_the_images_at_the_nearest_label() -> None:
    stored = numbered(torch.tensor([-80.0, -80.0, 0.0, 80.0, 80.0, 80.0]), DEGREES)
    assert stored.targets.tolist() == [0.0, 0.5, 1.0]
    assert stored.available(torch.tensor([0.0, 0.2, 0.3, 0.5, 0.74, 0.76, 1.0])).tolist() == [2, 2, 1, 1, 1, 3, 3]


def test_one_image_each_is_an_image_of_that_label_however_many_labels_there_are() -> None:
    labels = torch.arange(-80.0, 81.0).repeat(2)
    stored = numbered(labels, DEGREES)
    wanted = torch.tensor([-80.0, 3.0, 80.0]).repeat(100)
    found = rows_of(stored.one_each(DEGREES.to_target(wanted), torch.arange(300), 0))
    assert torch.equal(labels[found], wanted)
    assert len(found.unique()) == 6


def write_folder(folder: Path, count: int = 4, mode: str = "L", names: str = "abc", side: int = 16) -> Path:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            shape = (side, side) if mode == "L" else (side, side, 3)
            Image.fromarray(np.full(shape, 60 * number + image, np.uint8)).save(folder / name / f"{image}.png")
    return folder


def test_a_folder_with_the_name_of_a_built_in_set_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "digits", count=5)
    monkeypatch.chdir(tmp_path)
    stored = open_source("digits", CLASSES, 1, (16, 16))
    assert stored.available(torch.arange(3)).tolist() == [5, 5, 5]


def test_a_folder_of_classes_is_matched_by_name(tmp_path: Path) -> None:
    task = Classification(("c", "a", "b"))
    stored = open_source(str(write_folder(tmp_path / "images")), task, 1, (16, 16))
    assert isinstance(stored, StoredImages)
    found = stored.sample(torch.tensor([0, 1, 2]).repeat_interleave(4), torch.arange(4).repeat(3), 0)
    assert [sorted(part[:, 0, 3, 3].tolist()) for part in found.split(4)] == [
        [120, 121, 122, 123], [0, 1, 2, 3], [60, 61, 62, 63],
    ]  # fmt: skip


@pytest.mark.parametrize("column", ["angle", "label"])
def test_a_folder_s_labels_are_in_the_run_s_column_or_in_its_own(tmp_path: Path, column: str) -> None:
    lines = [f"file_name,other,{column}"]
    for angle in (-80, 0, 80):
        Image.fromarray(np.full((16, 16), angle + 80, np.uint8)).save(tmp_path / f"{angle}.png")
        lines.append(f"{angle}.png,7,{angle}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    stored = open_source(str(tmp_path), DEGREES, 1, (16, 16), "angle")
    found = stored.sample(torch.tensor([0.0, 0.5, 1.0]), torch.zeros(3, dtype=torch.int64), 0)
    assert found[:, 0, 0, 0].tolist() == [0, 80, 160]
    (tmp_path / "metadata.csv").write_text("\n".join(lines).replace(column, "turn"))
    with pytest.raises(UserError, match=r"has no column 'label' \(data\.label_column sets another\)"):
        open_source(str(tmp_path), DEGREES, 1, (16, 16), "angle")


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_arrays_of_every_split_are_taken_and_numbers_are_class_indices(tmp_path: Path, kind: str) -> None:
    images = torch.arange(30, dtype=torch.uint8)[:, None, None].expand(-1, 16, 16).numpy()
    labels = np.arange(30) % 3
    arrays = {"x_train": images[:20], "y_train": labels[:20], "x_test": images[20:], "y_test": labels[20:]}
    path = tmp_path / f"fakes.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    stored = open_source(str(path), CLASSES, 1, (16, 16))
    assert stored.available(torch.arange(3)).tolist() == [10, 10, 10]
    found = stored.sample(torch.ones(10, dtype=torch.int64), torch.arange(10), 0)
    assert sorted(found[:, 0, 0, 0].tolist()) == list(range(1, 30, 3))


def test_scalar_arrays(tmp_path: Path) -> None:
    images = torch.arange(9, dtype=torch.uint8)[:, None, None].expand(-1, 16, 16).numpy()
    np.savez(tmp_path / "fakes.npz", images=images, labels=np.arange(9) * 20 - 80)  # whole numbers, yet scalars
    stored = open_source(str(tmp_path / "fakes.npz"), DEGREES, 1, (16, 16))
    assert stored.sample(torch.tensor([0.5, 0.0]), torch.tensor([0, 1]), 0)[:, 0, 0, 0].tolist() == [4, 1]
    np.savez(tmp_path / "far.npz", images=images, labels=np.arange(9) * 30.0 - 80)
    with pytest.raises(UserError, match=r"far\.npz: label 100 at row 6 is outside the allowed range -80 to 80"):
        open_source(str(tmp_path / "far.npz"), DEGREES, 1, (16, 16))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"side": 20}, r"images are 20x20 pixels; the run's are 16x16, and these are not resized$"),
        ({"side": 8}, r"images are 8x8 pixels; the run's are 16x16, and these are not resized$"),
        ({"mode": "RGB"}, r"images have 3 channels; the run's have 1$"),
        ({"names": "abcd"}, r"class 'd' is not one of the run's: a, b, c$"),
        ({"names": "ab"}, r"has no image of class 'c'; every class of the run needs some$"),
    ],
)
def test_stored_images_that_are_refused(tmp_path: Path, made: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_source(str(write_folder(tmp_path / "images", **made)), CLASSES, 1, (16, 16))


def test_stored_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images")
    Image.new("L", (32, 32)).save(folder / "a" / "large.png")
    with pytest.raises(UserError, match=r"some images are 32x32 pixels; the run's are 16x16"):  # not: set data.size
        open_source(str(folder), CLASSES, 1, (16, 16))


def test_a_class_called_007_is_not_the_class_of_number_7(tmp_path: Path) -> None:
    task = Classification(tuple(f"{number:03d}" for number in range(1, 4)))
    lines = ["file_name,label"]
    for name, grey in [("002", 20), ("003", 30), ("001", 10)]:
        Image.fromarray(np.full((16, 16), grey, np.uint8)).save(tmp_path / f"{grey}.png")
        lines.append(f"{grey}.png,{name}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    sampler = open_source(str(tmp_path), task, 1, (16, 16))
    assert sampler.sample(torch.arange(3), torch.zeros(3, dtype=torch.int64), 0)[:, 0, 0, 0].tolist() == [
        10,
        20,
        30,
    ]


# --- on the road --------------------------------------------------------------------------------------------------

TINY = {
    "seeds": [0], "demonstration": True, "data": {"source": "digits", "train_size": 60},
    "teacher": {"network": "cnn8", "fit": {"steps": 4, "batch_size": 16}},
    "student": {"network": "cnn8", "fit": {"steps": 3, "batch_size": 16}, "transfer_steps": 3},
    "ratio": {"hidden": [32], "steps": 4, "batch_size": 32, "fakes_per_image": 1},
    "synthesis": {"images": 40, "filter": {"calibration": 20}, "subsampling": {"burn_in": 20}, "max_draws": 4},
    "compare": {"methods": ["cgan"]}, "runtime": {"threads": 1, "precision": "fp32"},
}  # fmt: skip


def go(out: Path, source: object, *words: str) -> dict[str, Any]:
    return run.run(recipe.from_tree(json.loads(json.dumps(TINY)), [f"generator.source={source}", *words]), out)


def stage_folders(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "artifacts").glob("show_generator-*"))


def test_a_function_in_the_gans_place_from_end_to_end(functions: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = go(out, f"{functions}:good")
    assert found["generator"]["parameters"] is None
    assert found["synthesis"]["kept"] > 0
    first = stage_folders(out)
    go(out, f"{functions}:good")
    assert stage_folders(out) == first
    file = tmp_path / "my_generators.py"
    file.write_text(file.read_text() + "# edited\n")
    go(out, f"{functions}:good")
    assert len(stage_folders(out)) == 2  # edited code is another generator


@pytest.mark.long
def test_stored_images_in_the_gans_place_from_end_to_end(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 16), dtype=np.uint8)
    path, out = tmp_path / "fakes.npz", tmp_path / "out"
    np.savez(path, images=images, labels=np.arange(200) % 10)
    found = go(out, path, "synthesis.subsampling=none", "synthesis.filter=false")
    assert found["synthesis"]["kept"] == 40
    kept = np.fromfile(next(out.glob("artifacts/make_images-*/images.u8")), np.uint8).reshape(-1, 16, 16)
    assert {image.tobytes() for image in kept} <= {image.tobytes() for image in images}
    np.savez(path, images=images[::-1], labels=np.arange(200) % 10)
    go(out, path, "synthesis.subsampling=none", "synthesis.filter=false")
    assert len(stage_folders(out)) == 2


def test_an_onnx_file_in_the_gans_place_from_end_to_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {
        "images": rng.integers(0, 256, (90, 16, 16), dtype=np.uint8),
        "labels": np.linspace(0, 1, 90),
    }
    np.savez(tmp_path / "data.npz", **data)
    onnx_file(tmp_path / "g.onnx", classes=False)
    words = [f"data.source={tmp_path / 'data.npz'}", "data.train_size=null", "synthesis.labels={kind: even, count: 10}"]
    found = go(tmp_path / "out", tmp_path / "g.onnx", *words, "synthesis.subsampling=none", "synthesis.filter=false")
    assert found["synthesis"]["kept"] == 40


def test_a_source_is_looked_for_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"generator\.source .*none\.onnx' is not there"):
        go(tmp_path / "out", tmp_path / "none.onnx")
    assert not (tmp_path / "out" / "artifacts").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [("generator.multipliers=[1,2,3]", r"^generator\.multipliers has 3"),
     ("generator.network.attention=16", r"^generator\.network\.attention is 16")],
)  # fmt: skip
def test_networks_that_do_not_fit_are_refused_before_anything_is_trained(word: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        go(tmp_path / "out", "null", "generator.network.kind=sagan", word)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("give", [lambda path: flat, lambda path: CallableSampler(flat), lambda path: str(path)])
def test_the_python_road_takes_functions_samplers_and_sources(
    give: Callable[[Path], Any], tmp_path: Path, fabric: Fabric
) -> None:
    labels = torch.arange(30) % 3
    images = flat(labels, torch.arange(30), 0)
    np.savez(tmp_path / "fakes.npz", images=images.numpy(), labels=labels.numpy())
    teacher = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(1, 3))
    road = Distiller(images, labels, teacher, fabric=fabric)
    road.use_generator(give(tmp_path / "fakes.npz"))
    fakes = road.synthesize(images=12, subsampling="none", filter=False)
    assert torch.equal(fakes.images[:, 0, 0, 0].long() // 40, fakes.labels)
    with pytest.raises(UserError, match=r"gives torch.float32 \[\d+, 1, 16, 16\]; needed: uint8"):
        road.use_generator(lambda targets, indices, seed: flat(targets, indices, seed).float())
    again = road.synthesize(images=12, subsampling="none", filter=False)  # the generator before it is still there
    assert torch.equal(again.images, fakes.images)


def test_a_function_may_seed_numpys_generators() -> None:
    seen = []

    def noise(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        seen.append(np.random.RandomState(seed).random())
        return torch.zeros(len(targets), 1, 16, 16, dtype=torch.uint8)

    for seed in (-(2**62) - 1, 5, 2**62):
        CallableSampler(noise).sample(torch.zeros(2), torch.arange(2), seed)
    assert len(set(seen)) == 3


def test_images_of_a_function_that_other_seeds_gave_are_not_taken_again(
    functions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_source(f"{functions}:good", CLASSES, 1, (16, 16)).content_key
    monkeypatch.setattr("cgankd.gan.adapters.SEEDS", 2**64)
    assert open_source(f"{functions}:good", CLASSES, 1, (16, 16)).content_key != before


class Grey(Sampler):
    """Images of one grey, which is changed between uses, as the weights of a network are."""

    level = 10

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        return torch.full((len(targets), 1, 16, 16), self.level, dtype=torch.uint8)


def test_a_sampler_that_was_changed_draws_anew(fabric: Fabric) -> None:
    labels = torch.arange(30) % 3
    teacher = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(1, 3))
    road, grey = Distiller(flat(labels, labels, 0), labels, teacher, fabric=fabric), Grey()
    for level in (10, 200):
        grey.level = level
        road.use_generator(grey)
        assert (road.synthesize(images=3, subsampling="none", filter=False).images == level).all()


def test_latents_are_a_pure_function_of_seed_label_and_index() -> None:
    targets, indices = torch.tensor([0.25, 0.25, 0.5]), torch.tensor([3, 4, 3])
    z = latents(targets, indices, 1, 5)
    assert torch.equal(latents(targets[2:], indices[2:], 1, 5), z[2:])
    assert len(torch.cat([z, latents(targets, indices, 2, 5)]).unique(dim=0)) == 6
