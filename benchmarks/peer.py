"""cgankd against torchdistill: images per second of the same training, in alternating pairs of one run.

``pip install torchdistill`` beside cgankd, in an environment of its own with torch and torchvision. The same networks,
images, batch size, views (a shift by up to 2 pixels, a mirror) and optimiser, for ``kd`` and for ``at``. torchdistill's
views are torchvision's transforms of single images in a DataLoader that works in the training process, as its examples
have it on a CPU.
"""

from __future__ import annotations

import copy
import functools
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from speed import line
from torch import Tensor, nn
from torch.utils.data import Dataset, RandomSampler
from torchdistill.core.distillation import DistillationBox
from torchvision import transforms

from cgankd import distill
from cgankd.config.settings import AugmentSettings, DataSettings, FitSettings
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Work
from cgankd.data import sources
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.nets import inference, zoo
from cgankd.training.best import Kept
from cgankd.training.loop import fit

LAYERS = ("layer1", "layer2", "layer3")
FROZEN_TEACHER = {"requires_grad": False, "forward_proc": "forward_batch_only"}


class TransformedImages(Dataset[tuple[Tensor, int]]):
    """Single images through torchvision's transforms."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.transform = transforms.Compose(
            [transforms.ToPILImage(), transforms.RandomCrop(32, padding=2), transforms.RandomHorizontalFlip(),
             transforms.ToTensor()]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(self.images.images[row]), int(self.images.labels[row])


def terms(method: str) -> dict[str, Any]:
    """torchdistill's settings of the losses, with our weights."""
    if method == "kd":
        paths = {f"{who}_module_{what}": value for who in ("student", "teacher")
                 for what, value in (("path", "."), ("io", "output"))}  # fmt: skip
        kd = {"key": "KDLoss", "kwargs": {**paths, "temperature": 4.0, "alpha": 0.1}}
        return {"kd": {"criterion": kd, "weight": 1.0}}
    sides = {layer: {"io": "output", "path": layer} for layer in LAYERS}
    pairs = {layer: {"teacher": side, "student": {**side, "weight": 1}} for layer, side in sides.items()}
    outputs = {"is_from_teacher": False, "module_path": ".", "io": "output"}
    wrapper = {"key": "SimpleLossWrapper", "kwargs": {"input": outputs, "target": {"uses_label": True}}}
    return {
        "label": {"criterion": {"key": "CrossEntropyLoss", "kwargs": {}}, "criterion_wrapper": wrapper, "weight": 1.0},
        "at": {"criterion": {"key": "ATLoss", "kwargs": {"at_pairs": pairs, "mode": "code"}}, "weight": 1000.0},
    }


def box(student: nn.Module, teacher: nn.Module, images: ImageSet, settings: FitSettings, method: str) -> Any:
    """torchdistill's trainer."""
    hooks = {"forward_hook": {"input": [], "output": list(LAYERS)}} if method == "at" else {}
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train", "requires_supp": True,
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": {"batch_size": settings.batch_size, "drop_last": True, "num_workers": 0},
        },
        "teacher": FROZEN_TEACHER | hooks,
        "student": {"forward_proc": "forward_batch_only"} | hooks,
        "optimizer": {"key": "SGD", "kwargs": {"lr": settings.learning_rate, "momentum": 0.9, "nesterov": True}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms(method)}},
    }  # fmt: skip
    data = {"train": TransformedImages(images)}
    return DistillationBox(teacher, student, data, config, torch.device("cpu"), [], False, 1)


def run(trainer: Any, steps: int) -> None:
    """The loop of torchdistill's examples, for so many steps."""
    done = 0
    while done < steps:
        trainer.pre_epoch_process(epoch=0)
        for images, targets, extra in trainer.train_data_loader:
            trainer.pre_forward_process()
            loss = trainer.forward_process(images, targets, extra)
            trainer.post_forward_process(loss=loss)
            done += 1
            if done == steps:
                return


def main() -> None:
    """Both methods."""
    logging.disable(logging.INFO)
    fabric, steps = make_fabric(), 60
    splits = sources.load(DataSettings(source="fashion", train_size=1000))
    settings = FitSettings(steps=steps, augment=AugmentSettings(shift=2, flip=True, views=0))
    for method in ("kd", "at"):
        student, teacher = (zoo.create(name, 1, 10, (32, 32)) for name in ("cnn16", "cnn40_grid"))
        trainer = box(copy.deepcopy(student), copy.deepcopy(teacher), splits.train, settings, method)
        network = inference.place(student, fabric).train()
        with tempfile.TemporaryDirectory() as folder:
            ours = functools.partial(_ours, fabric, network, teacher, splits, settings, method, Path(folder))
            line(f"{method}_against_torchdistill", 2.0, ours, functools.partial(run, trainer, steps))


def _ours(
    fabric: Any, student: nn.Module, teacher: nn.Module, splits: Any, settings: FitSettings, method: str, folder: Path
) -> None:
    objective = distill.create(method, splits.task)
    fit(Work(fabric), student, objective, TrainingImages(splits.train), settings, seed=0, teacher=teacher,
        kept=Kept(folder))  # fmt: skip


if __name__ == "__main__":
    main()
