"""What ``teacher.source`` names, opened and tried before anything is trained."""

from __future__ import annotations

from pathlib import Path

import torch

from cgankd.core.errors import UserError
from cgankd.core.plugins import is_function_name, load_function, tried
from cgankd.data.imageset import ImageSet
from cgankd.nets.inference import to_input
from cgankd.tasks import Task
from cgankd.tasks.outputs import AUTO, resolve, sentence
from cgankd.teachers.answers import read_answers
from cgankd.teachers.black_box import BlackBox, FunctionTeacher, OnnxTeacher

TRIED = 32  # images that it is asked about before anything is trained


def open_teacher(source: str, task: Task, known: ImageSet, setting: str = "teacher", outputs: str = AUTO) -> BlackBox:
    """The teacher that a setting names: module:function, an .onnx file, or a .csv file of predictions.

    A function and an ONNX file are tried on a few of the ``known`` images, whose labels tell what kind of outputs they
    give where ``outputs`` does not state it. Raises UserError where the source is not there, can't be opened, or gives
    other outputs than [B, number of outputs].
    """
    path, named = Path(source), f"{setting}.source"
    if is_function_name(source) and not path.exists():
        teacher: BlackBox = FunctionTeacher(load_function(source, named), task, source, named)
    elif path.suffix.lower() == ".onnx" and path.is_file():
        teacher = OnnxTeacher(path, task, named)
    elif answers_files(source) and path.is_file():
        if outputs != AUTO:
            raise UserError(
                f"{setting}.outputs = {outputs}, but {source} says itself what its columns are; allowed: auto"
            )
        return read_answers(path, task, known.channels, known.size)
    else:
        raise UserError(
            f"{named} {source!r} is {'a file of another kind' if path.is_file() else 'not there'}; "
            "allowed: module:function, an .onnx file, or a .csv file"
        )
    few = known.few(TRIED)
    given = f"float images [B, {known.channels}, {known.size[0]}, {known.size[1]}] in [0, 1]"
    with tried(
        f"{named} {source!r}: asking about {len(few)} images failed",
        f"it is given {given} and gives [B, {task.num_outputs}]",
    ):
        answers = teacher(to_input(few.images, torch.device("cpu")))
    kind = resolve(outputs, answers, few.labels, task, f"{named} {source}", f"{setting}.outputs")
    if kind.changes:
        teacher.gives = kind
        teacher.told = sentence(kind, f"{named} {source}", f"{setting}.outputs") if outputs == AUTO else ""
    return teacher


def answers_files(source: str | None) -> bool:
    """Whether ``teacher.source`` names answers that were given before, which no other image has.

    >>> answers_files("labels/predictions.csv"), answers_files("my.service:ask"), answers_files(None)
    (True, False, False)
    """
    return source is not None and Path(source).suffix.lower() == ".csv"
