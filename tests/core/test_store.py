"""The store: what makes a key, what makes an artifact stale, and what a kill leaves behind."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.config.settings import FitSettings, NoSubsampling, QuantileRatio
from cgankd.core.errors import OutOfTime, UserError
from cgankd.core.hashing import content_key, describe, file_key, tensor_key
from cgankd.core.store import CHECKPOINT, Artifact, Store, Work, stage
from cgankd.data.imageset import ImageSet, Splits, TrainingImages, UnlabelledImages
from cgankd.nets.build import ModuleNetwork
from cgankd.pipeline.inputs import Teachers
from cgankd.tasks import Classification, Regression

COPIES = multiprocessing.get_context("fork")  # processes that need not import torch, which takes seconds
BUILT: list[str] = []  # what stages were computed, in order
STEPS: list[Callable[[Work], dict[str, Any]]] = []  # what the next call of do_next does


@pytest.fixture(autouse=True)
def nothing_built() -> Iterator[None]:
    BUILT.clear()
    STEPS.clear()
    yield
    assert not STEPS


@stage()
def teacher(work: Work, **arguments: Any) -> dict[str, Any]:
    BUILT.append("teacher")
    work.save("weights", {"a": torch.arange(1000)})
    return {"loss": 0.1}


@stage()
def student(work: Work, **arguments: Any) -> dict[str, Any]:
    BUILT.append("student")
    work.save("weights", {"a": torch.arange(10)})
    return {}


@stage()
def do_next(work: Work, **arguments: Any) -> dict[str, Any]:
    BUILT.append("do_next")
    return STEPS.pop(0)(work)


def unmarked(work: Work) -> dict[str, Any]:
    raise AssertionError


nameless = stage()(lambda work, **arguments: {})


class Owner:
    content_key = "owner"

    @stage()
    def method(self, work: Work) -> dict[str, Any]:
        raise AssertionError

    @classmethod
    @stage()
    def of_class(cls, work: Work) -> dict[str, Any]:
        raise AssertionError


class Callable_:
    stage_version = 1
    __name__ = __qualname__ = "called"  # type: ignore[assignment]

    def __call__(self, work: Work) -> dict[str, Any]:
        raise AssertionError


ARGUMENTS: dict[str, Any] = {"settings": {"steps": 3}, "train": "k"}


def call(path: Path, function: Any, fabric: Fabric, **arguments: Any) -> Artifact:
    store = Store(path, fabric)
    try:
        return store.call(function, **arguments)
    finally:
        store.close()


@pytest.fixture
def key(fabric: Fabric) -> Callable[..., str]:
    """key(argument) -> the key of a stage that is given it."""
    store = Store.temporary(fabric)
    return lambda argument: store.call(teacher, argument=argument).key


# --- what is there, and what is stale -----------------------------------------------------------------------------


def test_what_is_there_is_not_built_again(tmp_path: Path, fabric: Fabric) -> None:
    first, second = (call(tmp_path, teacher, fabric, **ARGUMENTS) for _ in range(2))
    assert BUILT == ["teacher"]
    assert first.folder == second.folder == tmp_path / "artifacts" / f"teacher-{first.key}"
    assert torch.equal(second.tensors("weights")["a"], torch.arange(1000))
    assert second.seconds == first.seconds
    assert second.content_key == first.key
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    "changes",
    [{"settings": {"steps": 4}}, {"settings": {"steps": 3.0}}, {"settings": {"steps": 3, "more": None}},
     {"train": "other"}, {"train": None}, {"val": "k"}, {"val": None}, {"settings": {}}, {"seed": 0}],
)  # fmt: skip
def test_another_argument_makes_another_key(tmp_path: Path, fabric: Fabric, changes: dict[str, Any]) -> None:
    first = call(tmp_path, teacher, fabric, **ARGUMENTS)
    second = call(tmp_path, teacher, fabric, **{**ARGUMENTS, **changes})
    assert first.key != second.key
    assert BUILT == ["teacher", "teacher"]
    call(tmp_path, teacher, fabric, **ARGUMENTS)
    assert len(BUILT) == 2  # and the old one is still there


def test_an_argument_that_is_left_out_makes_another_key(tmp_path: Path, fabric: Fabric) -> None:
    keys = {call(tmp_path, teacher, fabric, **given).key for given in (ARGUMENTS, {"train": "k"}, {})}
    assert len(keys) == 3


def test_another_stage_version_or_environment_makes_another_key(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [call(tmp_path, teacher, fabric, **ARGUMENTS).key, call(tmp_path, student, fabric, **ARGUMENTS).key]
    monkeypatch.setattr(teacher, "stage_version", 2)
    keys.append(call(tmp_path, teacher, fabric, **ARGUMENTS).key)
    monkeypatch.setattr(teacher, "stage_version", 1)
    keys.append(call(tmp_path, teacher, Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"), **ARGUMENTS).key)
    for further in ({"transformers": "1"}, {"transformers": "2"}):
        store = Store(tmp_path, fabric, further=further)
        keys.append(store.call(teacher, **ARGUMENTS).key)
        store.close()
    for module, name in (("cgankd.core.store", "__version__"), ("torch", "__version__")):
        with monkeypatch.context() as patched:
            patched.setattr(f"{module}.{name}", "another")
            keys.append(call(tmp_path, teacher, fabric, **ARGUMENTS).key)
    assert len(set(keys)) == len(keys) == len(BUILT)
    call(tmp_path, teacher, fabric, **ARGUMENTS)
    assert len(BUILT) == len(keys)  # and the first is still there


def test_threads_are_written_down_and_make_no_other_key(tmp_path: Path, fabric: Fabric) -> None:
    artifact = call(tmp_path, teacher, fabric, **ARGUMENTS)
    assert json.loads((artifact.folder / "artifact.json").read_text())["made_with"]["threads"] == 1
    try:
        torch.set_num_threads(2)
        assert call(tmp_path, teacher, fabric, **ARGUMENTS) == artifact
        other = call(tmp_path, student, fabric)
    finally:
        torch.set_num_threads(1)
    assert BUILT == ["teacher", "student"]
    assert json.loads((other.folder / "artifact.json").read_text())["made_with"]["threads"] == 2


def test_the_artifact_says_what_it_was_made_of(tmp_path: Path, fabric: Fabric) -> None:
    artifact = call(tmp_path, teacher, fabric, **ARGUMENTS, network=torch.zeros(2))
    record = json.loads((artifact.folder / "artifact.json").read_text())
    assert (record["stage"], record["version"], record["key"]) == ("teacher", 1, artifact.key)
    assert record["arguments"] == {**ARGUMENTS, "network": tensor_key(torch.zeros(2))}
    assert record["made_with"] == {**Store.temporary(fabric).environment, "threads": 1, "processes": 1}
    assert record["files"] == {"weights.safetensors": (artifact.folder / "weights.safetensors").stat().st_size}
    assert (record["summary"], record["seconds"]) == ({"loss": 0.1}, artifact.seconds)


def test_keys_do_not_depend_on_the_order_of_arguments_or_on_the_process(tmp_path: Path, fabric: Fabric) -> None:
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": (1, 2), "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5})
    assert content_key(["a", "b"]) != content_key(["ab"])
    code = (
        # torch takes seconds to import, and no tensor is hashed
        "import sys, types; torch = sys.modules['torch'] = types.ModuleType('torch'); torch.Tensor = object\n"
        "from cgankd.core.hashing import content_key; print(content_key({'a': 1, 'b': [0.1, 'ü', None]}))"
    )
    other = {**os.environ, "PYTHONHASHSEED": "1"}  # this process has drawn another one
    done = subprocess.run([sys.executable, "-c", code], env=other, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == content_key({"b": [0.1, "ü", None], "a": 1})
    keys = {
        call(tmp_path, teacher, fabric, **given).key
        for given in ({"a": {"x": 1, "y": 2}, "b": [3]}, {"b": (3,), "a": {"y": 2, "x": 1}})
    }
    assert len(keys) == 1


# --- what may be called -------------------------------------------------------------------------------------------


def refused() -> dict[str, Callable[[Store], Any]]:
    seen = 3

    @stage()
    def closure(work: Work) -> dict[str, Any]:
        return {"seen": seen}

    @stage()
    def inner(work: Work) -> dict[str, Any]:
        return {}

    return {
        "closure": lambda store: store.call(closure),
        "function in a function": lambda store: store.call(inner),
        "lambda": lambda store: store.call(stage()(lambda work: {"seen": seen})),
        "lambda of a module": lambda store: store.call(nameless, a=1),
        "method": lambda store: store.call(Owner().method),
        "method of a class": lambda store: store.call(Owner.of_class),
        "callable": lambda store: store.call(Callable_()),  # type: ignore[arg-type]
        "partial": lambda store: store.call(functools.partial(teacher, seed=1)),
        "not marked": lambda store: store.call(unmarked),
        "positional argument": lambda store: store.call(teacher, 1),
    }


@pytest.mark.parametrize("what", refused())
def test_only_a_marked_function_of_a_module_with_named_arguments_is_called(
    tmp_path: Path, fabric: Fabric, what: str
) -> None:
    store = Store(tmp_path / "out", fabric)
    with pytest.raises(TypeError, match="must be a module's function marked with @stage, called with named arguments"):
        refused()[what](store)
    store.close()
    assert not BUILT
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"), (nn.Linear(1, 1), "Linear"), ({"inner": [nn.Linear(1, 1)]}, "Linear"), ({1, 2}, "set"),
        (b"bytes", "bytes"), (lambda: 1, "function"), (torch.float32, "dtype"), (FitSettings, "ModelMetaclass"),
        (ImageSet, "type"), (torch.Generator(), "Generator"), (iter([1]), "list_iterator"),
    ],
)  # fmt: skip
def test_an_argument_without_a_content_key_is_refused(tmp_path: Path, fabric: Fabric, value: Any, kind: str) -> None:
    store = Store(tmp_path / "out", fabric)
    with pytest.raises(TypeError, match=f"^{kind} has no content key"):
        store.call(teacher, a=value)
    store.close()
    assert not BUILT
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_no_argument(fabric: Fabric, bad: float) -> None:
    with pytest.raises(ValueError):
        Store.temporary(fabric).call(teacher, a=bad)
    assert not BUILT


# --- what is hashed, by its content -------------------------------------------------------------------------------


def test_a_file_key_is_its_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"x" * 3_000_000)
    b.write_bytes(b"x" * 3_000_000)
    assert file_key(a) == file_key(b)
    b.write_bytes(b"x" * 2_999_999 + b"y")
    assert file_key(a) != file_key(b)


def test_a_path_follows_the_content(tmp_path: Path, key: Callable[..., str]) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("one")
    b.write_text("one")
    first = key(a)
    assert key(b) == first  # the name does not count
    assert key(str(a)) != first  # text is text
    before = a.stat()
    a.write_text("two")
    os.utime(a, ns=(before.st_atime_ns, before.st_mtime_ns))  # nor does its time
    assert key(a) not in (first, key(str(a)))
    a.write_text("one")
    assert key(a) == first
    with pytest.raises(FileNotFoundError):
        key(tmp_path / "none")


def test_a_folder_follows_its_files_and_their_names(tmp_path: Path, key: Callable[..., str]) -> None:
    def folder(name: str, **files: str) -> Path:
        for file, text in files.items():
            path = tmp_path / name / file.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / name

    first = key(folder("one", a="1", deep_b="2"))
    assert key(folder("two", deep_b="2", a="1")) == first
    others = [{"a": "1", "deep_b": "3"}, {"a": "1", "deep_c": "2"}, {"a": "1"}, {"a": "1", "b": "2"},
              {"a": "1", "deep_b": "2", "more": ""}]  # fmt: skip
    keys = {key(folder(f"other{number}", **files)) for number, files in enumerate(others)}
    assert len(keys | {first}) == 1 + len(others)


def test_settings_follow_every_number(key: Callable[..., str]) -> None:
    settings = FitSettings()
    assert key(FitSettings(steps=settings.steps)) == key(settings)
    changes: list[dict[str, Any]] = [{"steps": 1}, {"augment": {"shift": 1}}, {"schedule": "cosine"},
                                     {"schedule": {"warmup": 0.1}}, {"adversarial": {}}]  # fmt: skip
    keys = {key(FitSettings.model_validate(change)) for change in changes}
    assert len(keys | {key(settings)}) == 1 + len(changes)
    assert key(NoSubsampling()) != key(QuantileRatio())


@dataclasses.dataclass(frozen=True)
class Plain:
    number: float
    path: Path | None = None
    tensor: Tensor | None = None


def test_a_dataclass_follows_its_fields(tmp_path: Path, key: Callable[..., str]) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    first = key(Plain(1.0, file, torch.zeros(2)))
    assert key(Plain(1.0, file, torch.zeros(2))) == first
    others = [Plain(2.0, file, torch.zeros(2)), Plain(1.0, None, torch.zeros(2)), Plain(1.0, file, torch.ones(2))]
    file_changed = [key(other) for other in others]
    file.write_text("two")
    assert len({first, *file_changed, key(Plain(1.0, file, torch.zeros(2)))}) == 5
    tasks = [Classification(("a", "b")), Classification(("a", "c")), Regression(0.0, 1.0), Regression(0.0, 2.0),
             Regression(0.0, 1.0, "mm")]  # fmt: skip
    assert len({key(task) for task in tasks}) == len(tasks)


def test_a_tensor_follows_type_shape_and_numbers(key: Callable[..., str]) -> None:
    tensor = torch.arange(24.0).view(2, 3, 2, 2)
    first = key(tensor)
    for same in (tensor.clone(), tensor.to(memory_format=torch.channels_last), tensor.clone().requires_grad_(),
                 nn.Parameter(tensor.clone()), tensor.repeat(2, 1, 1, 1)[:2]):  # fmt: skip
        assert key(same) == first
    changed = tensor.clone()
    changed[1, 2, 1, 1] += 1e-5
    others = [changed, tensor.view(3, 2, 2, 2), tensor.flatten(), tensor.double(), tensor.bfloat16(), tensor.long(),
              tensor[:1], tensor.flip(0), torch.empty(0), torch.empty(0, 2), torch.tensor(0.0), torch.tensor(True),
              torch.tensor(False), torch.tensor([0.0]), torch.zeros(1, dtype=torch.int32)]  # fmt: skip
    assert len({first, *map(key, others)}) == 1 + len(others)


def test_images_follow_pixels_labels_and_columns(key: Callable[..., str], noise: Callable[..., ImageSet]) -> None:
    images = noise(6)
    first = key(images)
    assert key(noise(6)) == first
    assert key(ImageSet(images.images.to(memory_format=torch.channels_last), images.labels)) == first
    pixels = images.images.clone()
    pixels[5, 0, 15, 15] += 1
    ones = torch.ones(6)
    others = [
        ImageSet(pixels, images.labels), ImageSet(images.images, images.labels + 1),
        ImageSet(images.images, images.labels.float()), images.take(torch.arange(5)),
        ImageSet(images.images, images.labels, {"group": ones}),
        ImageSet(images.images, images.labels, {"ratio": ones}),
        ImageSet(images.images, images.labels, {"group": ones + 1}), UnlabelledImages(images.images),
        UnlabelledImages(pixels), TrainingImages(images), TrainingImages(ImageSet(pixels, images.labels)),
        TrainingImages(images, images), TrainingImages(images, images, 0.5), TrainingImages(images, validation=images),
    ]  # fmt: skip
    assert len({first, *map(key, others)}) == 1 + len(others)
    task = Classification(("0", "1", "2"))
    splits = Splits("a", task, images, images, noise(4), noise(5))
    assert key(splits) == key(Splits("a", task, noise(6), noise(6), noise(4), noise(5)))
    assert key(splits) != key(dataclasses.replace(splits, test=noise(5, seed=1)))


def test_artifacts_and_what_rests_on_them_follow_their_keys(fabric: Fabric, key: Callable[..., str]) -> None:
    a, b = Artifact(Path("a"), "1", 2.0, {}), Artifact(Path("b"), "2", 2.0, {})
    assert key(a) == key(dataclasses.replace(a, folder=Path("elsewhere"), seconds=3.0))
    assert key(a) != key(b)
    assert key({"inner": [a]}) != key({"inner": [b]})
    assert key(a) != key("1")  # a key is not taken for text
    torch.manual_seed(0)
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert key(Teachers((ModuleNetwork(module),))) == key(Teachers((ModuleNetwork(module),)))
    assert key(Teachers((ModuleNetwork(module),))) != key(Teachers((ModuleNetwork(other),)))
    assert key(Teachers((ModuleNetwork(module),))) != key(Teachers((ModuleNetwork(module),), "mean"))


class Scaled(nn.Module):
    """Constants that no state dict holds; calls is a counter."""

    def __init__(self, mean: float = 0.5, scale: float = 1.0, sides: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.scale, self.sides, self.calls = scale, sides, 0
        self.register_buffer("mean", torch.tensor(mean), persistent=False)


def test_constants_that_a_module_does_not_save_are_part_of_its_key() -> None:
    modules = [Scaled(), Scaled(mean=0.4), Scaled(scale=2.0), Scaled(sides=(1, 3))]
    keys = {ModuleNetwork(nn.Sequential(module)).content_key for module in modules}
    assert len(keys) == 4
    modules[0].calls += 1
    assert ModuleNetwork(nn.Sequential(modules[0])).content_key in keys


def test_numbers_of_other_types_are_told_apart(key: Callable[..., str]) -> None:
    values: list[Any] = [None, True, False, 1, 0, 1.0, 0.0, "1", "", "None", [], {}, [1], [[1]], {"a": None}]
    assert len({key(value) for value in values}) == len(values)
    assert describe((1, 2)) == [1, 2]
    assert describe({"b": True, 3: "ü"}) == {"b": True, "3": "ü"}


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "missing", "grown", "description", "no description", "other key"])
def test_a_damaged_artifact_is_built_again(tmp_path: Path, fabric: Fabric, damage: str) -> None:
    artifact = call(tmp_path, teacher, fabric, **ARGUMENTS)
    weights, description = artifact.folder / "weights.safetensors", artifact.folder / "artifact.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "missing":
        weights.unlink()
    elif damage == "grown":
        weights.write_bytes(weights.read_bytes() + b"x")
    elif damage == "description":
        description.write_text(description.read_text()[:-20])
    elif damage == "no description":
        description.unlink()
    else:
        found = json.loads(description.read_text())
        description.write_text(json.dumps({**found, "key": "0" * 16}))
    again = call(tmp_path, teacher, fabric, **ARGUMENTS)
    assert BUILT == ["teacher", "teacher"]
    assert again.key == artifact.key
    assert torch.equal(again.tensors("weights")["a"], torch.arange(1000))
    call(tmp_path, teacher, fabric, **ARGUMENTS)
    assert len(BUILT) == 2


def test_an_error_leaves_no_artifact_and_keeps_the_work(tmp_path: Path, fabric: Fabric) -> None:
    def fail(work: Work) -> dict[str, Any]:
        work.path(f"{CHECKPOINT}.safetensors").write_bytes(b"half way")
        work.path(f"{CHECKPOINT}-1.safetensors").write_bytes(b"of a loop within")
        raise RuntimeError

    def resume(work: Work) -> dict[str, Any]:
        assert work.path(f"{CHECKPOINT}.safetensors").read_bytes() == b"half way"
        assert work.path(f"{CHECKPOINT}-1.safetensors").read_bytes() == b"of a loop within"
        return {}

    STEPS.extend([fail, resume])
    with pytest.raises(RuntimeError):
        call(tmp_path, do_next, fabric)
    assert not (tmp_path / "artifacts").exists()
    artifact = call(tmp_path, do_next, fabric)
    assert sorted(file.name for file in artifact.folder.iterdir()) == ["artifact.json"]  # no checkpoint, no clock


def test_time_before_an_interruption_counts(tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("cgankd.core.store.time.monotonic", lambda: clock[0])

    def after(seconds: float, error: type[BaseException] | None) -> Callable[[Work], dict[str, Any]]:
        def build(work: Work) -> dict[str, Any]:
            clock[0] += seconds
            if error:
                raise error
            return {}

        return build

    STEPS.extend([after(7.0, KeyboardInterrupt), after(5.0, None)])
    with pytest.raises(KeyboardInterrupt):
        call(tmp_path, do_next, fabric)
    assert call(tmp_path, do_next, fabric).seconds == pytest.approx(12.0)
    clock[0] += 1.0
    assert call(tmp_path, do_next, fabric).seconds == pytest.approx(12.0)


MODULE = """
import os

from cgankd.core.files import replacing
from cgankd.core.store import CHECKPOINT, stage

@stage()
def make(work, *, steps):
    left = work.path(f"{CHECKPOINT}.safetensors")
    if left.is_file():
        seen = left.read_bytes().decode()
        work.path("images.u8").write_bytes(b"2" * 10)
        return {"seen": seen}
    work.path("images.u8").write_bytes(b"1" * 999)
    left.write_bytes(b"half way")
    with replacing(left) as temporary:  # killed while it saves the next checkpoint
        temporary.write_bytes(b"half of a checkpoint")
        os._exit(9)
"""


def test_a_killed_stage_leaves_no_artifact_and_its_checkpoint(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_stage.py").write_text(MODULE)
    out = tmp_path / "out"
    monkeypatch.syspath_prepend(str(tmp_path))
    from a_stage import make  # type: ignore[import-not-found]

    killed = COPIES.Process(target=call, args=(out, make, fabric), kwargs={"steps": 3})
    killed.start()
    killed.join()
    assert killed.exitcode == 9
    assert not (out / "artifacts").exists()
    artifact = call(out, make, fabric, steps=3)  # the killed process's lock is gone with it
    assert artifact.summary == {"seen": "half way"}
    # what the kill left half-written is not handed on as part of the result
    assert sorted(file.name for file in artifact.folder.iterdir()) == ["artifact.json", "images.u8"]
    assert (artifact.folder / "images.u8").read_bytes() == b"2" * 10


def test_what_a_kill_left_in_the_cache_is_removed(tmp_path: Path, fabric: Fabric) -> None:
    def compute(work: Work) -> dict[str, Any]:
        folder = work.cache_for("outputs", 1)
        assert folder is not None
        folder.mkdir(parents=True)
        (folder / ".whole.safetensors.abc.tmp").touch()
        (folder / "whole.safetensors").touch()
        return {"folder": str(folder)}

    STEPS.append(compute)
    folder = Path(call(tmp_path, do_next, fabric).summary["folder"])
    Store(tmp_path, fabric).close()
    assert [file.name for file in folder.iterdir()] == ["whole.safetensors"]


def test_no_stage_begins_after_the_deadline(tmp_path: Path, fabric: Fabric) -> None:
    done = call(tmp_path, teacher, fabric, **ARGUMENTS)
    late = Store(tmp_path, fabric, deadline=time.monotonic() - 1.0)
    assert late.call(teacher, **ARGUMENTS) == done  # what is there takes no time
    with pytest.raises(OutOfTime):
        late.call(student)
    late.close()
    assert BUILT == ["teacher"]
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_summary_that_json_cannot_hold_leaves_no_artifact(tmp_path: Path, fabric: Fabric, bad: float) -> None:
    STEPS.append(lambda work: {"loss": bad})
    with pytest.raises(ValueError):
        call(tmp_path, do_next, fabric)
    assert not (tmp_path / "artifacts").exists()


# --- what comes back ----------------------------------------------------------------------------------------------


def test_the_summary_is_the_same_built_and_read_back(tmp_path: Path, fabric: Fabric) -> None:
    summary = {
        "loss": 0.1 + 0.2, "none": None, "list": [1, [2.5, "ü"]], "yes": True, "nested": {"a": 1e-300},
        "pair": (1, 2), "by_number": {3: "c"},
    }  # fmt: skip
    STEPS.append(lambda work: summary)
    built, read = call(tmp_path, do_next, fabric), call(tmp_path, do_next, fabric)
    assert BUILT == ["do_next"]
    assert read.summary["loss"] == 0.1 + 0.2
    assert read.summary["list"] == [1, [2.5, "ü"]]
    assert built.summary == read.summary
    assert built == read


def test_every_artifact_that_was_used_is_listed_and_its_time_counts_once(tmp_path: Path, fabric: Fabric) -> None:
    store = Store(tmp_path, fabric)
    a = store.call(teacher)
    b = store.titled("other").call(student, teacher=a)
    c = store.call(teacher, seed=1)
    assert store.call(teacher) == a
    assert [artifact.key for artifact in store.used] == [a.key, b.key, c.key, a.key]
    assert store.seconds() == pytest.approx({"teacher": a.seconds + c.seconds, "student": b.seconds})
    store.close()


# --- where a stage computes ---------------------------------------------------------------------------------------


def test_a_stage_is_given_its_arguments_as_they_are_and_where_to_work(tmp_path: Path, fabric: Fabric) -> None:
    seen: list[Work] = []

    def look(work: Work) -> dict[str, Any]:
        seen.append(work)
        return {}

    STEPS.extend([look, look])
    deadline = time.monotonic() + 1000.0
    store = Store(tmp_path, fabric, checkpoint_seconds=7.0, deadline=deadline)
    first = store.call(do_next)
    second = store.titled("a title").call(do_next, seed=1)
    store.close()
    assert [work.title for work in seen] == ["do next", "a title"]
    for work, artifact in zip(seen, (first, second), strict=True):
        assert work.fabric is fabric
        assert work.progress is store.progress
        assert work.folder == tmp_path / "work" / artifact.folder.name
        assert (work.checkpoint_seconds, work.deadline) == (7.0, deadline)
    checkpoint = seen[0].checkpoint()
    assert checkpoint.path == seen[0].path("checkpoint.safetensors")
    assert (checkpoint.every_seconds, checkpoint.deadline) == (7.0, deadline)
    inner = dataclasses.replace(seen[0], loop="inner").checkpoint()
    assert inner.path == seen[0].path("checkpoint-inner.safetensors")


def test_a_cache_is_shared_by_what_computes_alike(tmp_path: Path, fabric: Fabric) -> None:
    seen: list[Work] = []
    STEPS.extend([lambda work: seen.append(work) or {}] * 3)
    call(tmp_path, do_next, fabric)
    call(tmp_path, do_next, fabric, seed=1)
    call(tmp_path, do_next, Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    one, two, coarse = (work.cache_for("outputs", torch.zeros(2), 3) for work in seen)
    assert one == two != coarse
    assert one is not None
    assert one.parent.parent == tmp_path / "cache"
    others = [seen[0].cache_for(*parts) for parts in (("other", torch.zeros(2), 3), ("outputs", torch.ones(2), 3),
                                                      ("outputs", torch.zeros(2)))]  # fmt: skip
    assert len({one, *others}) == 4
    assert Work(fabric).cache_for("outputs", 1) is None


def test_a_loop_by_itself_keeps_nothing(fabric: Fabric) -> None:
    work = Work(fabric)
    assert work.checkpoint().path is None
    with pytest.raises(ValueError, match="no folder to keep a in"):
        work.path("a")
    with pytest.raises(ValueError, match="no folder"):
        work.save("a", {})


# --- folders and locks --------------------------------------------------------------------------------------------


def hold(path: Path, fabric: Fabric, connection: Connection) -> None:
    store = Store(path, fabric)
    connection.send("held")
    connection.recv()
    assert store.path == path


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path, fabric: Fabric) -> None:
    connection, other = COPIES.Pipe()
    holder = COPIES.Process(target=hold, args=(tmp_path, fabric, other))
    holder.start()
    assert connection.recv() == "held"
    with pytest.raises(UserError, match="in use by another run"):
        Store(tmp_path, fabric)
    connection.send("enough")
    holder.join()
    assert holder.exitcode == 0
    Store(tmp_path, fabric).close()


def test_a_new_folder_in_which_nothing_was_made_is_taken_away(tmp_path: Path, fabric: Fabric) -> None:
    Store(tmp_path / "new", fabric).close()
    assert not (tmp_path / "new").exists()
    call(tmp_path / "used", teacher, fabric)
    assert (tmp_path / "used").is_dir()
    (tmp_path / "mine").mkdir()
    Store(tmp_path / "mine", fabric).close()
    assert (tmp_path / "mine").is_dir()


def test_closing_twice_is_harmless_and_opening_twice_is_refused(tmp_path: Path, fabric: Fabric) -> None:
    store = Store(tmp_path, fabric)
    with pytest.raises(UserError, match="in use"):
        Store(tmp_path, fabric)
    store.close()
    store.close()
    Store(tmp_path, fabric).close()


def test_a_store_that_nobody_refers_to_lets_go(tmp_path: Path, fabric: Fabric) -> None:
    store = Store(tmp_path, fabric)
    store.call(teacher)
    del store
    gc.collect()
    Store(tmp_path, fabric).close()


def test_runs_share_artifacts_but_not_with_a_run_in_their_folder(tmp_path: Path, fabric: Fabric) -> None:
    shared, one, two = tmp_path / "shared", tmp_path / "one", tmp_path / "two"
    first = Store(one, fabric, artifacts=shared)
    made = first.call(teacher)
    assert made.folder.parent == shared / "artifacts"
    with pytest.raises(UserError, match=r"shared is in use"):
        Store(shared, fabric)
    second = Store(two, fabric, artifacts=shared)
    assert second.call(teacher) == made
    assert BUILT == ["teacher"]
    first.close()
    second.close()
    Store(shared, fabric).close()
    assert one.is_dir()
    assert not list(one.iterdir())


def test_a_run_lets_its_workers_in_and_nobody_else(tmp_path: Path, fabric: Fabric) -> None:
    store = Store(tmp_path, fabric)
    with pytest.raises(UserError, match="is in use"):
        Store(tmp_path / "worker", fabric, artifacts=tmp_path)
    store.share()
    worker = Store(tmp_path / "worker", fabric, artifacts=tmp_path)
    made = worker.call(teacher)
    worker.close()
    with pytest.raises(UserError, match="is in use"):
        Store(tmp_path, fabric)
    assert store.call(teacher) == made
    assert BUILT == ["teacher"]
    store.close()
    Store(tmp_path, fabric).close()


def test_a_temporary_folder_goes_with_the_store_without_a_warning(fabric: Fabric) -> None:
    store = Store.temporary(fabric)
    folder, titled = store.path, store.titled("a title")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del store
        gc.collect()
        assert folder.is_dir()
        del titled
        gc.collect()
    assert not folder.exists()
    assert [str(warning.message) for warning in said if str(folder) in str(warning.message)] == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path, fabric: Fabric) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="is a file; a folder is needed"):
            Store(path, fabric)
        with pytest.raises(UserError, match="is a file; a folder is needed"):
            Store(path, fabric, artifacts=tmp_path / "shared")
        with pytest.raises(UserError, match="is a file; a folder is needed"):
            Store(tmp_path / "out", fabric, artifacts=path)
    Store(tmp_path / "out", fabric, artifacts=tmp_path / "shared").close()  # which nobody holds


def test_another_commands_folder_is_refused_and_stays_as_it_is(tmp_path: Path, fabric: Fabric) -> None:
    call(tmp_path, teacher, fabric)
    for command, owner in (("continual", "run"), ("lm", "run")):
        with pytest.raises(UserError, match=f"is a folder of cgankd {owner}, .* or a folder of cgankd {command}"):
            Store(tmp_path, fabric, command=command)
    Store(tmp_path, fabric).close()  # its own goes on
    Store(tmp_path / "new", fabric, command="lm").close()
    assert not (tmp_path / "new").exists()


def test_a_folder_of_before_commands_were_written_down_is_taken(tmp_path: Path, fabric: Fabric) -> None:
    (tmp_path / ".lock").touch()
    Store(tmp_path, fabric, command="lm").close()
    Store(tmp_path, fabric).close()  # in which nothing was made, so nobody's
    (tmp_path / "recipe.yaml").touch()
    Store(tmp_path, fabric, command="lm").close()
    with pytest.raises(UserError, match="is a folder of cgankd lm"):
        Store(tmp_path, fabric)


def test_a_temporary_store_works_and_is_removed(fabric: Fabric) -> None:
    descriptors = Path("/proc/self/fd")  # where there is such a folder
    before = len(list(descriptors.glob("*")))
    store = Store.temporary(fabric)
    folder = store.path
    made = store.call(teacher, **ARGUMENTS)
    assert made.folder.is_relative_to(folder)
    assert store.call(teacher, **ARGUMENTS) == made
    assert BUILT == ["teacher"]
    titled = store.titled("other")
    del store
    gc.collect()
    assert titled.call(teacher, **ARGUMENTS) == made  # the same store by another name
    assert torch.equal(made.tensors("weights")["a"], torch.arange(1000))
    del titled
    gc.collect()
    assert not folder.exists()
    assert len(list(descriptors.glob("*"))) == before


def test_the_key_of_one_element_does_not_depend_on_its_stride() -> None:
    key = tensor_key(torch.tensor([0.5]))
    assert tensor_key(torch.tensor(0.5).expand(1)) == key
    assert tensor_key(torch.tensor([0.5, 1.0, 2.0])[::3]) == key
