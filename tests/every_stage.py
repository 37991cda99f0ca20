"""Every stage once, in tiny runs in a folder; run as a script: ``every_stage.py FOLDER NUMBER NAME ...``.

NUMBER changes all that no result may depend on: the order of runs, of files in a folder and of other random calls.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cgankd import Distiller
from cgankd.config import recipe
from cgankd.config.yaml_config import from_tree
from cgankd.continual.run import run as run_continual
from cgankd.continual.settings import Continual
from cgankd.core.files import read_json, save_tensors
from cgankd.core.progress import Progress
from cgankd.core.run_plan import Station
from cgankd.metrics import cost
from cgankd.nets import zoo
from cgankd.pipeline import run

RUNTIME = {"threads": int(os.environ.get("OMP_NUM_THREADS", "1")), "precision": "fp32"}
FIT = {"steps": 3, "batch_size": 16}
GENERATOR = {"channels": 8, "latent": 8, "label_dim": 8, "steps": 3, "batch_size": 16, "ema_start": 1}
SHARED: dict[str, Any] = {
    "seeds": [0],
    "teacher": {"network": "cnn8", "fit": FIT},
    "student": {"network": "cnn8", "fit": FIT, "transfer_steps": 3, "real_share": 0.5},
    "ratio": {"hidden": [32], "steps": 3, "batch_size": 32, "fakes_per_image": 1},
    "synthesis": {
        "images": 30, "filter": {"calibration": 20}, "subsampling": {"burn_in": 20, "fall_back": False},
    },
    "metrics": {"generator": {"images": 50}},
    "runtime": RUNTIME,
}  # fmt: skip
CLASSES = {
    **SHARED,
    "data": {"source": "../classes", "train_size": 45},
    "generator": GENERATOR,
    "ratio": {**SHARED["ratio"], "features": {"kind": "autoencoder", "network": "cnn8", "steps": 3}},
    "metrics": {"generator": {"images": 50}, "robustness": {"images": 10, "steps": 1}},
    "compare": {"methods": ["nokd", "pseudo", "cgan_kd"]},
}
SCALARS = {
    **SHARED,
    "data": {"source": "../scalars", "train_size": 40},
    "teacher": {"network": "cnn8", "weights": "../teacher.safetensors", "outputs": "scaled"},
    "generator": {**GENERATOR, "scalar": {"label_input": {"steps": 3}}},
    "compare": {"methods": ["nokd", "cgan"]},
}
OWN = {
    **SHARED,
    "data": {"source": "../classes", "train_size": 45},
    "teacher": {"source": "every_stage:answers", "jury": [{"source": "every_stage:answers"}], "votes": "mean"},
    "generator": {"source": "every_stage:draw"},
    "synthesis": {"images": 30, "subsampling": "none", "filter": {"calibration": 20}},
    "compare": {"methods": ["cgan"]},
}
TEXT: dict[str, Any] = {
    "text": {"source": "../texts", "vocabulary": 280},
    "teacher": {"width": 16, "layers": 1, "heads": 2, "dropout": 0.1, "fit": {"steps": 2, "batch_size": 2}},
    "student": {"width": 8, "layers": 1, "heads": 2, "dropout": 0.1, "fit": {"steps": 2, "batch_size": 2}},
    "sampling": {"prompt": 3, "length": 5, "top_k": 20, "gamma": 2},
    "distil": {"methods": ["skd"], "fit": {"steps": 2, "batch_size": 2}},
    "seeds": [0],
    "test_prompts": 2,
    "runtime": RUNTIME,
}


def answers(images: Tensor) -> Tensor:
    """A teacher that only answers: three bands of the image."""
    return torch.stack([images[:, :, rows : rows + 5].mean((1, 2, 3)) for rows in (0, 5, 10)], dim=1) * 9


def draw(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
    """A generator that is no GAN."""
    base = (targets.double() * 37 + indices * 11 + seed % 97).long()
    return ((base[:, None, None, None] + torch.arange(256).view(1, 1, 16, 16)) % 256).to(torch.uint8)


def write_inputs(folder: Path) -> None:
    """Folders of images and texts, a network's weights."""
    noise = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / "classes" / name).mkdir(parents=True)
    (folder / "scalars").mkdir()
    rows = ["file_name,label"]
    for number in range(90):
        band = 5 * (number % 3)
        pixels = noise.integers(0, 60, (16, 16), dtype=np.uint8)
        pixels[band : band + 5] += 150
        Image.fromarray(pixels).save(folder / "classes" / "abc"[number % 3] / f"{number:02}.png")
        pixels[:, : number // 8] += 30
        Image.fromarray(pixels).save(folder / "scalars" / f"{number:02}.png")
        rows.append(f"{number:02}.png,{number / 8:.2f}")
    (folder / "scalars" / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "texts").mkdir()
    for number in range(6):
        words = " ".join(f"word{(number * k) % 11}" for k in range(60))
        (folder / "texts" / f"{number}.txt").write_text(words)
    torch.manual_seed(0)
    save_tensors(folder / "teacher.safetensors", zoo.create("cnn8", 1, 1, (16, 16)).state_dict())


class Elsewhere(Progress):
    """Before each stage, torch's, numpy's and Python's global random numbers are elsewhere."""

    def __init__(self, number: int) -> None:
        self.number = number

    @contextmanager
    def stage(self, station: Station) -> Iterator[None]:
        self.number += 1000
        torch.manual_seed(self.number)
        np.random.seed(self.number)  # noqa: NPY002
        random.seed(self.number)
        yield


def images_of(tree: dict[str, Any]) -> Callable[[Path, Progress], Any]:
    return lambda out, progress: run.run(recipe.from_tree(tree), out, progress)


def own_module(out: Path, progress: Progress) -> None:
    """A module of the user's program."""
    noise = np.random.default_rng(0)
    images, labels = noise.integers(0, 256, (40, 16, 16), dtype=np.uint8), np.arange(40) % 3
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    student, teacher = (
        nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)) for _ in range(2)
    )
    torch.random.set_rng_state(state)
    distiller = Distiller(images, labels, teacher, out=out, progress=progress)
    distiller.distill(student, "kd", generated=False, steps=3, batch_size=16)


def continual(out: Path, progress: Progress) -> None:
    """Two tasks."""
    tree = {
        "seeds": [0], "data": {"source": "digits", "train_size": 100, "val_size": 20}, "tasks": 2, "network": "cnn8",
        "methods": ["gkd+ta"], "fit": FIT, "exemplars": 2, "runtime": RUNTIME,
    }  # fmt: skip
    run_continual(from_tree(Continual, tree, where="test"), out, progress)


def language(out: Path, progress: Progress) -> None:
    """A run that trains its teacher, and one that gets the folder of it."""
    from cgankd.lm.run import run as run_language
    from cgankd.lm.settings import LanguageRecipe

    run_language(from_tree(LanguageRecipe, TEXT, where="test"), out, progress)
    made = [path.parent for path in out.glob("artifacts/train_model-*/artifact.json")]
    (folder,) = [path for path in made if read_json(path / "artifact.json")["arguments"]["settings"]["width"] == 16]
    lent = {**TEXT, "teacher": {**TEXT["teacher"], "folder": str(folder.relative_to(Path.cwd()))}}
    run_language(from_tree(LanguageRecipe, lent, where="test"), out.with_name("lent"), progress)


RUNS: dict[str, Callable[[Path, Progress], Any]] = {
    "classes": images_of(CLASSES),
    "scalars": images_of(SCALARS),
    "own": images_of(OWN),
    "module": own_module,
    "continual": continual,
    "language": language,
}


@contextmanager
def files_in_another_order(number: int) -> Iterator[None]:
    """``os.scandir`` and ``os.listdir``, which pathlib calls, give the entries of a folder shuffled."""
    scan, names, draw = os.scandir, os.listdir, random.Random(number)

    class Shuffled:
        def __init__(self, path: Any = ".") -> None:
            with scan(path) as entries:
                self.entries = list(entries)
            draw.shuffle(self.entries)

        def __enter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def __exit__(self, *error: object) -> None: ...

        def __iter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def close(self) -> None: ...

    def listed(path: Any = ".") -> list[Any]:
        found = names(path)
        draw.shuffle(found)
        return found

    os.scandir, os.listdir = Shuffled, listed  # type: ignore[assignment]
    try:
        yield
    finally:
        os.scandir, os.listdir = scan, names


def run_all(folder: Path, number: int, names: Iterable[str]) -> None:
    """The runs of these names, in this order, in ``folder``, which is the current one."""
    for name in names:
        RUNS[name](folder / name, Elsewhere(number))


def main(folder: Path, number: int, names: list[str]) -> None:
    cost.WARM_UP, cost.REPEATS = 0, 1
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    os.umask(0o077)
    folder.mkdir()
    os.chdir(folder)
    with files_in_another_order(number):
        run_all(folder, number, names)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
