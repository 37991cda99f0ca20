"""Curves, scores and pictures of a run for experiment trackers.

The loggers have the interface of Lightning Fabric's (core/own_loggers.py). Fabric's own is used for CSV alone: each of
them imports torch's compiler, which takes longer than a small run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cgankd.core import extras
from cgankd.core.errors import UserError, did_you_mean, said
from cgankd.core.stopping import ORDERLY
from cgankd.core.watching import Output, Watched

if TYPE_CHECKING:
    from torch import Tensor

NEEDED = {"tensorboard": "tensorboard", "csv": None, "wandb": "wandb", "mlflow": "mlflow"}
NONE = "none"


def choose(name: str | None) -> str:
    """The tracker to use. None: tensorboard where it is installed, else none.

    Raises UserError for an unknown name, and for a package that is not installed.
    """
    if name is None:
        return "tensorboard" if importlib.util.find_spec("tensorboard") else NONE
    if name not in (*NEEDED, NONE):
        allowed = (*NEEDED, NONE)
        raise UserError(f"--track {name!r} is not known; allowed: {', '.join(allowed)}{did_you_mean(name, allowed)}")
    package = NEEDED.get(name)
    if package is not None and not importlib.util.find_spec(package):
        raise extras.missing(f"--track {name}", package, "track")
    return name


class Logger(Protocol):
    """What is needed of a logger. Those that take pictures also have ``log_picture(name, image)``.

    status: how the run ended, in Fabric's words: "success", "failed" or "aborted" (stopped, or out of time).
    """

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None: ...

    def finalize(self, status: str) -> None: ...


class Tracker(Output):
    """Passes histories, scores and pictures to one logger, which is opened when there is something to log.

    with_training: scores alone are nothing to log, because they are those of an earlier run, which has logged them.
    A logger that can't be opened stops the run with a UserError; one that fails later is left alone, and the run goes
    on.
    """

    def __init__(
        self, name: str, open_logger: Callable[[str, Path], Logger] | None = None, *, with_training: bool = False
    ) -> None:
        self.name, self._open, self.with_training = name, open_logger or open_logger_of, with_training
        self._logger: Logger | None = None
        self._failed = False
        self._ended = "success"
        self._watched: Watched | None = None

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        self._watched = watched
        match event:
            case "values":
                loop = _name(fields["loop"])
                self._log({f"{loop}/{name}": value for name, value in fields["values"].items()}, fields["step"])
            case "row_scored" if self._logger is not None or not self.with_training:
                row = _name(fields["row"])
                scores = {f"{split}/{row}": fields[split] for split in ("validation", "test")}
                self._log({name: value for name, value in scores.items() if value is not None}, fields["seed"])
            case "stopped":
                self._ended = "aborted" if fields["code"] in ORDERLY else "failed"

    def picture(self, name: str, image: Tensor) -> None:
        if (logger := self._opened()) is not None and (show := getattr(logger, "log_picture", None)) is not None:
            self._try(show, name, image)

    def close(self) -> None:
        if self._logger is not None:
            self._try(self._logger.finalize, self._ended)

    def _log(self, metrics: dict[str, float], step: int) -> None:
        if metrics and (logger := self._opened()) is not None:
            self._try(logger.log_metrics, metrics, step)

    def _opened(self) -> Logger | None:
        if self._logger is None and not self._failed and self._watched is not None and self._watched.folder is not None:
            try:
                self._logger = self._open(self.name, self._watched.folder)
            except Exception as error:  # each package has errors of its own, such as for a missing key or server
                raise UserError(f"--track {self.name} fails: {said(error)}; allowed: --track none") from error
        return self._logger

    def _try(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:
            self._logger, self._failed = None, True
            assert self._watched is not None  # it has opened the logger
            self._watched.say(f"--track {self.name} fails, and the run goes on without it: {said(error)}")


def _name(text: str) -> str:
    from cgankd.core.files import file_name  # imported here, because it imports torch

    return file_name(text)


def open_logger_of(name: str, folder: Path) -> Logger:
    """The logger called ``name`` for the run in ``folder``."""
    match name:
        case "tensorboard":
            from cgankd.core.own_loggers import TensorBoardLogger

            return TensorBoardLogger(folder)
        case "csv":
            return _csv(folder)
        case "wandb":
            import wandb

            from cgankd.core.own_loggers import WandbLogger

            return WandbLogger(wandb, folder)
        case "mlflow":
            extras.report_nothing()  # to MLflow's makers; the run goes to the user's server alone
            import mlflow

            from cgankd.core.own_loggers import MlflowLogger

            return MlflowLogger(mlflow, folder)
    raise ValueError(name)


def _csv(folder: Path) -> Logger:
    from lightning_fabric.loggers.csv_logs import CSVLogger

    # csv/version_N/metrics.csv, because Fabric's logger deletes an earlier file of the same name.
    return CSVLogger(folder, name="csv", flush_logs_every_n_steps=1)
