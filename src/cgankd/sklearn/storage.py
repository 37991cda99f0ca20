"""A fitted estimator as a file: its student's weights, and all else as JSON in the metadata. No pickle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from cgankd import tasks
from cgankd._version import __version__
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, save_tensors
from cgankd.data.listing import Plan
from cgankd.nets import zoo
from cgankd.shipping import formats
from cgankd.shipping.deployed import InputKind
from cgankd.shipping.finished import Student
from cgankd.sklearn.layout import Layout
from cgankd.tasks import Task

KEY = "cgankd.sklearn"


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a file holds besides the weights. kept: number of features and parameters. student: its name or module."""

    estimator: str
    kept: Mapping[str, Any]
    layout: Layout
    task: Task
    classes: npt.NDArray[Any] | None
    student: str | nn.Module


def save_parts(path: Path, parts: Parts, network: nn.Module) -> None:
    """Write the file. Parameters that are no JSON, such as a teacher, are left out."""
    params = {name: value for name, value in parts.kept["params"].items() if name != "student" and _is_json(value)}
    record = {
        "made_by": f"cgankd {__version__}",
        "estimator": parts.estimator,
        "kept": {**parts.kept, "params": params},
        "layout": dataclasses.asdict(parts.layout),
        "task": parts.task.to_json(),
        "classes": None if parts.classes is None else [parts.classes.dtype.str, _values(parts.classes)],
        "student": parts.student if isinstance(parts.student, str) else None,
    }
    save_tensors(path, network.state_dict(), {KEY: json.dumps(record, ensure_ascii=False)})


def load_parts(path: Path, estimator: str, student: nn.Module | None) -> tuple[Parts, nn.Module]:
    """What :func:`save_parts` wrote, and the network in eval mode. Raises UserError for any other file."""
    tensors, metadata = load_tensors(path)
    if KEY not in metadata:
        raise UserError(f"{path} holds no estimator; needed: a file that {estimator}.save wrote")
    record = json.loads(metadata[KEY])
    if record["estimator"] != estimator:
        raise UserError(f"{path} holds a {record['estimator']}; needed: {record['estimator']}.load")
    if record["student"] is None and student is None:
        raise UserError(f"{path} holds the weights of a module of your own; needed: {estimator}.load(path, student=..)")
    layout, task = Layout(**record["layout"]), tasks.from_json(record["task"])
    network = student or zoo.create(record["student"], layout.channels, task.num_outputs, layout.size)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path}: the weights are not those of student ({' '.join(str(error).split())})") from None
    classes = None if record["classes"] is None else np.asarray(record["classes"][1], record["classes"][0])
    parts = Parts(estimator, record["kept"], layout, task, classes, record["student"] or network)
    return parts, network.eval()


def write_onnx(path: Path, network: nn.Module, name: str, task: Task, layout: Layout, kind: InputKind) -> None:
    """The network as an ONNX file that says what it takes and gives."""
    height, width = layout.size
    plan = Plan(height, width, layout.channels, "crop")
    facts = {"row": "estimator", "network": name, "metric": task.metric, "unit": task.metric_unit}
    formats.write_onnx(Student(network, task, plan, facts), path, kind)


def _values(classes: npt.NDArray[Any]) -> list[Any]:
    """As JSON has them: dates and durations as the whole numbers that numpy keeps them as."""
    return list((classes.view(np.int64) if classes.dtype.kind in "mM" else classes).tolist())


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
