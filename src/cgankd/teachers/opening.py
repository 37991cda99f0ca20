"""Opens the teacher that ``teacher.source`` names, and tries it before anything is trained."""

from __future__ import annotations

from pathlib import Path

from cgankd.config.settings import HttpSettings, TeacherSettings
from cgankd.core.errors import UserError
from cgankd.core.plugins import is_function_name, load_function
from cgankd.core.runtime import CPU
from cgankd.data.imageset import ImageSet
from cgankd.nets.inference import to_input
from cgankd.tasks import Task
from cgankd.tasks.outputs import AUTO, resolve, sentence, unsteady
from cgankd.teachers.answers import read_answers
from cgankd.teachers.black_box import BlackBox, FunctionTeacher, OnnxTeacher
from cgankd.teachers.endpoint import HttpTeacher, is_address

HTTP = HttpSettings()
TRIED = 32  # number of images for the trial


def open_teachers(settings: TeacherSettings, task: Task, known: ImageSet, folder: Path | None) -> dict[str, BlackBox]:
    """The black boxes among the teacher and its jury, by setting; see :func:`open_teacher`."""
    return {
        setting: open_teacher(teacher.source, task, known, setting, teacher.outputs, teacher.http, folder)
        for setting, teacher in settings.all()
        if teacher.source is not None
    }


def open_teacher(
    source: str,
    task: Task,
    known: ImageSet,
    setting: str = "teacher",
    outputs: str = AUTO,
    http: HttpSettings = HTTP,
    folder: Path | None = None,
) -> BlackBox:
    """The teacher that a setting names: module:function, an .onnx file, an address, or a .csv file of predictions.

    http: how an address is asked. folder: where its answers are kept; None: in memory.
    All but a file of predictions are tried on a few of the ``known`` images. Their labels help to recognise the kind of
    outputs, if ``outputs`` does not state it. Raises UserError if the source does not exist, can't be opened, or gives
    outputs other than [B, number of outputs].
    """
    path, named = Path(source), f"{setting}.source"
    if is_address(source):
        teacher: BlackBox = HttpTeacher(source, task, http, named, folder)
    elif is_function_name(source) and not path.exists():
        teacher = FunctionTeacher(load_function(source, named), task, source, named)
    elif path.suffix.lower() == ".onnx" and path.is_file():
        teacher = OnnxTeacher(path, task, named)
    elif answers_files(source) and path.is_file():
        if outputs != AUTO:
            raise UserError(
                f"{setting}.outputs = {outputs}, but the columns of {source} already state it; allowed: auto"
            )
        return read_answers(path, task, known.channels, known.size)
    else:
        raise UserError(
            f"{named} {source!r} {'is a file of another kind' if path.is_file() else 'does not exist'}; "
            "allowed: module:function, an .onnx file, an address (http:// or https://), or a .csv file"
        )
    if isinstance(teacher, OnnxTeacher):
        teacher.check_images(known.channels, known.size)
    few = known.few(TRIED)
    inputs = to_input(few.images[:], CPU)
    predictions = teacher.raw_outputs(inputs)
    kind = resolve(outputs, predictions, few.labels, task, f"{named} {source}", f"{setting}.outputs")
    notes = [kind.misfit]
    if not isinstance(teacher, HttpTeacher):  # which keeps its answers, and may charge for each
        notes.append(unsteady(f"{named} {source}", teacher.raw_outputs, inputs, predictions))
    if kind.changes:
        teacher.gives = kind
        notes.append(sentence(kind, f"{named} {source}", f"{setting}.outputs") if outputs == AUTO else "")
    teacher.note = " ".join(filter(None, notes))
    return teacher


def shown_name(source: str) -> str:
    """The name of a teacher in tables.

    >>> shown_name("models/teacher.onnx"), shown_name("http://localhost:8000/predict?size=2")
    ('teacher.onnx', 'localhost:8000/predict')
    """
    if is_address(source):
        return source.partition("://")[2].partition("?")[0]
    return Path(source).name


def answers_files(source: str | None) -> bool:
    """Whether ``teacher.source`` names a file of predictions, which exist only for its images.

    >>> answers_files("labels/predictions.csv"), answers_files("my.service:ask"), answers_files(None)
    (True, False, False)
    """
    return source is not None and not is_address(source) and Path(source).suffix.lower() == ".csv"
