"""Loggers for TensorBoard, Weights & Biases and MLflow with the interface of Lightning Fabric's loggers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from torch import Tensor

from cgankd.core.paths import RECIPE


class TensorBoardLogger:
    """Writes the files that ``tensorboard --logdir FOLDER/tensorboard`` shows."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        if text := _recipe(folder):
            self._writer.add_text("settings", f"```yaml\n{text}\n```")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def log_picture(self, name: str, image: Tensor) -> None:
        self._writer.add_image(name, image)

    def finalize(self, status: str) -> None:
        self._writer.close()


class WandbLogger:
    """Each stage has its own steps, so each is plotted over ``STAGE/step``. WANDB_MODE=offline needs no network."""

    def __init__(self, wandb: Any, folder: Path) -> None:
        self._wandb = wandb
        config = yaml.safe_load(_recipe(folder))
        self._run = wandb.init(project="cgankd", name=folder.resolve().name, dir=str(folder), config=config)
        self._known: set[str] = set()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        groups = {name.rpartition("/")[0] for name in metrics}
        for group in sorted(groups - self._known):
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        self._known |= groups
        self._run.log({**metrics, **{f"{group}/step": step for group in groups}})

    def log_picture(self, name: str, image: Tensor) -> None:
        self._run.log({name: self._wandb.Image(pixels(image))})

    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "success" else 1)  # from 1 on it is shown as failed


class MlflowLogger:
    """A run of the experiment "cgankd" on the server, or in the data base, that MLFLOW_TRACKING_URI names."""

    ENDS: ClassVar[Mapping[str, str]] = {"success": "FINISHED", "failed": "FAILED", "aborted": "KILLED"}

    def __init__(self, mlflow: Any, folder: Path) -> None:
        self._mlflow = mlflow
        mlflow.set_experiment("cgankd")
        self._run = mlflow.start_run(run_name=folder.resolve().name)
        if config := yaml.safe_load(_recipe(folder)):
            mlflow.log_params(dict(_by_name(config)))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        # MLflow allows no equals sign in a name
        self._mlflow.log_metrics({name.replace("=", "-"): value for name, value in metrics.items()}, step=step)

    def log_picture(self, name: str, image: Tensor) -> None:
        self._mlflow.log_image(pixels(image), f"{name.replace('/', '-')}.png")

    def finalize(self, status: str) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # it prints an address, and stdout is for the result
            self._mlflow.end_run(status=self.ENDS[status])


def _recipe(folder: Path) -> str:
    """The settings of the run in the folder, as YAML; "" where it has none."""
    file = folder / RECIPE
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _by_name(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting that has a value, such as ("data.source", "digits")."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _by_name(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value


def pixels(image: Tensor) -> Any:
    """uint8 [C, H, W] as an array [H, W, 3]."""
    colour = image if image.shape[0] == 3 else image.expand(3, -1, -1)
    return colour.permute(1, 2, 0).numpy()
