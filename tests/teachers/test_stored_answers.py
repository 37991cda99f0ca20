"""Answers in a CSV file: read as they were meant, found again by an image's pixels, refused with file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgankd.core.errors import UserError
from cgankd.nets.inference import to_input
from cgankd.tasks import Classification, Regression, Task
from cgankd.teachers.answers import StoredAnswers, read_answers

CLASSES, AGES = Classification(("ant", "bee", "007")), Regression(10.0, 60.0, "years")


def pictures(folder: Path, count: int = 4) -> torch.Tensor:
    """``folder``/a/0.png ...: uint8 [count, 1, 16, 16]."""
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16), dtype=np.uint8)
    (folder / "a").mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "a" / f"{number}.png")
    return torch.from_numpy(images)[:, None]


def answers(folder: Path, text: str, task: Task) -> StoredAnswers:
    (folder / "predictions.csv").write_text(text)
    return read_answers(folder / "predictions.csv", task, 1, (16, 16))


def test_names_of_classes(tmp_path: Path) -> None:
    images = pictures(tmp_path)
    text = "prediction,file_name\nbee,a/2.png\nant,a/0.png\n007,a/1.png\n"  # any order, and not all
    teacher = answers(tmp_path, text, CLASSES)
    outputs = teacher(to_input(images[[0, 1, 2]], torch.device("cpu")))
    assert CLASSES.predict(outputs).tolist() == [0, 2, 1]
    errors = CLASSES.error(outputs, torch.tensor([0, 2, 0]))
    # certainty: no error where it agrees, and where not the log of the probability that is left to other classes
    assert errors.tolist() == pytest.approx([0.0, 0.0, -np.log(1e-12)], abs=1e-5)
    assert teacher.knows(images[:3])
    assert teacher.unanswered(images) == 1
    with pytest.raises(UserError, match=r"predictions.csv: has no prediction for 1 of 4 images; needed: all"):
        teacher(to_input(images, torch.device("cpu")))


def test_probabilities(tmp_path: Path) -> None:
    images = pictures(tmp_path)
    text = "file_name,007,ant,bee,comment\na/0.png,0.7,0.1,0.2,\na/1.png,0,0.5,0.504,rounded\n"
    teacher = answers(tmp_path, text, CLASSES)
    found = CLASSES.answer(teacher(to_input(images[:2], torch.device("cpu"))))
    expected = [[0.1, 0.2, 0.7], [0.5 / 1.004, 0.504 / 1.004, 0.0]]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_scalars_in_their_own_unit(tmp_path: Path) -> None:
    images = pictures(tmp_path)
    text = "file_name,prediction\na/0.png,10\na/1.png,35.5\na/2.png,72\na/3.png,-1e1\n"
    outputs = answers(tmp_path, text, AGES)(to_input(images, torch.device("cpu")))
    np.testing.assert_allclose(outputs[:, 0].numpy(), [0.0, 0.51, 1.24, -0.4], atol=1e-6)
    assert AGES.predict(outputs).tolist() == pytest.approx([10.0, 35.5, 60.0, 10.0])  # clipped as any teacher's


def test_every_grey_and_colour_is_found_again() -> None:
    images = torch.arange(3 * 256, dtype=torch.int64).remainder(256).to(torch.uint8)[:, None, None, None]
    images = images.expand(-1, 3, 16, 16).clone()
    images[256:512, 0] = 0
    images[512:, 2] = 7
    teacher = StoredAnswers(images, torch.arange(len(images)).float()[:, None], "made")
    found = teacher(to_input(images, torch.device("cpu")))[:, 0].long()
    first = {image.numpy().tobytes(): row for row, image in reversed(list(enumerate(images)))}
    assert found.tolist() == [first[image.numpy().tobytes()] for image in images]  # of twins, the first


def test_other_answers_or_other_images_are_another_teacher(tmp_path: Path) -> None:
    pictures(tmp_path)
    text = "file_name,prediction\na/0.png,ant\na/1.png,bee\n"
    key = answers(tmp_path, text, CLASSES).content_key
    assert answers(tmp_path, text.replace("_name,prediction", "_name,prediction "), CLASSES).content_key == key
    assert answers(tmp_path, text.replace("bee", "ant"), CLASSES).content_key != key
    assert answers(tmp_path, text.replace("1.png", "2.png"), CLASSES).content_key != key


@pytest.mark.parametrize(
    ("task", "text", "words"),
    [
        (
            CLASSES,
            "file_name,label\na/0.png,ant\n",
            r"no column 'prediction', nor one for each class \(ant, bee, 0",
        ),
        (AGES, "file_name,label\na/0.png,3\n", r"no column 'prediction'; columns found: file_name, label"),
        (CLASSES, "file,prediction\na/0.png,ant\n", r"has no column 'file_name'"),
        (CLASSES, "file_name,prediction\na/0.png,wasp\n", r"line 2: prediction 'wasp' .* one of ant, bee, 007"),
        (
            AGES,
            "file_name,prediction\na/0.png,old\n",
            r"line 2: prediction 'old' is not allowed; allowed: a finite",
        ),
        (AGES, "file_name,prediction\na/0.png,nan\n", r"line 2: prediction 'nan' is not allowed"),
        (
            CLASSES,
            "file_name,ant,bee,007\na/0.png,.5,.5,.5\n",
            r"line 2: the probabilities add up to 1.5; allowed: 1",
        ),
        (CLASSES, "file_name,ant,bee,007\na/0.png,1,0,x\n", r"line 2: 'x' is not a probability; allowed: 0 to 1"),
        (AGES, "file_name,prediction\na/0.png,3\na/9.png,3\n", r"line 3: file 'a/9.png' is not in"),
        (AGES, "file_name,prediction\n../0.png,3\n", r"line 2: '../0.png' is outside the folder"),
        (
            AGES,
            "file_name,prediction\na/0.png,3\na/0.png,4\n",
            r"1 file is named twice, by rows that differ: 'a/0.png' \(lines 2 and 3\)",
        ),
        (AGES, "file_name,prediction\n", r"has no rows below its header"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, task: Task, text: str, words: str) -> None:
    pictures(tmp_path)
    with pytest.raises(UserError, match=words):
        answers(tmp_path, text, task)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "p.csv").write_text("file_name,prediction\na/0.png,3\n")
    with pytest.raises(UserError, match="images are 16x16 pixels; the run's are 16x20"):
        read_answers(tmp_path / "p.csv", AGES, 3, (20, 16))
