"""What ``teacher.source`` names, opened and tried before anything is trained."""

from __future__ import annotations

from pathlib import Path

import torch

from cgankd.core.errors import UserError
from cgankd.core.plugins import is_function_name, load_function, tried
from cgankd.tasks import Task
from cgankd.teachers.answers import read_answers
from cgankd.teachers.black_box import SETTING, BlackBox, FunctionTeacher, OnnxTeacher


def open_teacher(source: str, task: Task, channels: int, size: tuple[int, int], setting: str = SETTING) -> BlackBox:
    """The teacher that a setting names: module:function, an .onnx file, or a .csv file of predictions.

    A function and an ONNX file are tried on two images. Raises UserError where the source is not there, can't be
    opened, or gives other outputs than [B, number of outputs].
    """
    path = Path(source)
    if is_function_name(source) and not path.exists():
        teacher: BlackBox = FunctionTeacher(load_function(source, setting), task, source, setting)
    elif path.suffix.lower() == ".onnx" and path.is_file():
        teacher = OnnxTeacher(path, task, setting)
    elif answers_files(source) and path.is_file():
        return read_answers(path, task, channels, size)
    else:
        raise UserError(
            f"{setting} {source!r} is {'a file of another kind' if path.is_file() else 'not there'}; "
            "allowed: module:function, an .onnx file, or a .csv file"
        )
    grey = torch.linspace(0.0, 1.0, 2)[:, None, None, None].expand(-1, channels, *size).contiguous()
    given = f"float images [B, {channels}, {size[0]}, {size[1]}] in [0, 1]"
    with tried(
        f"{setting} {source!r}: asking about two images failed",
        f"it is given {given} and gives [B, {task.num_outputs}]",
    ):
        teacher(grey)
    return teacher


def answers_files(source: str | None) -> bool:
    """Whether ``teacher.source`` names answers that were given before, which no other image has.

    >>> answers_files("labels/predictions.csv"), answers_files("my.service:ask"), answers_files(None)
    (True, False, False)
    """
    return source is not None and Path(source).suffix.lower() == ".csv"
