"""A teacher behind an address: what it is sent, which failures are tried again, what is kept, what is refused."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from answering_teachers import stages, tiny, weight
from cgankd.config.settings import HttpSettings
from cgankd.core.errors import UserError
from cgankd.data.imageset import ImageSet
from cgankd.pipeline import run
from cgankd.tasks import Classification, Regression, Task
from cgankd.teachers import endpoint
from cgankd.teachers.endpoint import HttpTeacher
from cgankd.teachers.opening import open_teacher
from served_teacher import Server, npy, served

CLASSES, DEGREES = Classification(("a", "b", "c")), Regression(-80.0, 80.0, "degrees")
QUICK = HttpSettings(wait=0.0, tries=3, timeout=0.3)


CUT = (200, {"Content-Type": "application/x-npy", "Content-Length": "9999"}, npy(np.zeros((7, 3)))[:-4])


@pytest.fixture
def server() -> Iterator[Server]:
    with served(3) as running:
        yield running


def pixels(count: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def teacher_at(server: Server, folder: Path | None = None, task: Task = CLASSES, **settings: Any) -> HttpTeacher:
    return HttpTeacher(server.address, task, QUICK.model_copy(update=settings), folder=folder)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_outputs_are_those_that_numpy_computes(server: Server, as_json: bool) -> None:
    server.as_json, images = as_json, pixels()
    outputs = teacher_at(server, batch_size=3)(images / 255)
    expected = images.numpy().reshape(7, 256) / 255 @ weight(3) + 0.5
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert server.images == [3, 3, 1]


def test_no_image_is_sent_twice_not_even_by_the_next_process(server: Server, tmp_path: Path) -> None:
    images = pixels()[[0, 1, 2, 1, 0]]
    first = teacher_at(server, tmp_path)
    outputs = first(images / 255)
    assert first.asked == 3
    again = teacher_at(server, tmp_path)
    assert torch.equal(again(images / 255), outputs)
    assert (again.asked, server.images) == (0, [3])
    more = again(pixels()[[2, 3]] / 255)  # one known, one new
    assert torch.equal(more[0], outputs[2])
    assert server.images == [3, 1]
    assert teacher_at(server, tmp_path, version="2")(images / 255).shape == (5, 3)
    assert server.images == [3, 1, 3]  # another model at the same address


def test_answers_that_were_kept_for_another_task_are_not_taken_for_this_one(server: Server, tmp_path: Path) -> None:
    teacher_at(server, tmp_path)(pixels() / 255)
    server.weights = weight(1)
    assert teacher_at(server, tmp_path, DEGREES)(pixels() / 255).shape == (7, 1)


def test_equal_bytes_of_another_shape_are_another_image(server: Server, tmp_path: Path) -> None:
    teacher, images = teacher_at(server, tmp_path), pixels(1) / 255
    teacher(images)
    teacher(images.reshape(1, 1, 8, 32))
    assert server.images == [1, 1]


@pytest.mark.parametrize(
    "failure",
    ["slow", "closed", CUT, (503, {}, b"busy"), (429, {"Retry-After": "0"}, b""), (500, {}, b""), (502, {}, b"")],
)
def test_what_may_pass_is_tried_again(server: Server, failure: Any) -> None:
    server.failures = [failure, failure]
    assert teacher_at(server)(pixels() / 255).shape == (7, 3)
    assert len(server.tokens) == 3


def test_the_timeout_is_for_the_whole_reply(server: Server) -> None:
    server.failures = ["drips"]
    with pytest.raises(UserError, match=r"no answer after 1 tries \(TimeoutError: .* within 0.3 seconds"):
        teacher_at(server, tries=1)(pixels() / 255)


def test_waits_grow_and_the_server_may_ask_for_longer_ones(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(endpoint, "sleep", waits.append)
    busy = (503, {}, b"")
    server.failures = [busy, busy, busy, (429, {"Retry-After": "20"}, b""), (429, {"Retry-After": "9999"}, b"")]
    teacher_at(server, tries=6, wait=1.0)(pixels() / 255)
    assert waits == [1.0, 2.0, 4.0, 20.0, 60.0]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ((503, {}, b"over\nloaded"), r"no answer after 3 tries \(HTTP 503 Service Unavailable: over loaded\)"),
        ("slow", r"no answer after 3 tries \(TimeoutError: timed out\); .* within 0.3 seconds"),
        ((401, {}, b"who are you"), r"refuses the request \(HTTP 401 Unauthorized: who are you\)"),
        ((404, {}, b""), r"refuses the request \(HTTP 404 Not Found\)"),
        ((302, {"Location": "http://a.b/c"}, b""), r"HTTP 302 .*sends the request on to http://a.b/c; give that"),
        ((200, {"Content-Type": "text/html"}, b"<p>"), r"replies with content type text/html; allowed: application/x-"),
        ((200, {"Content-Type": "application/json"}, b"{"), r"its reply can't be read as application/json \(JSONDec"),
        ((200, {"Content-Type": "application/json"}, b'{"a": 1}'), r"can't be read as .*KeyError: 'outputs'"),
        ((200, {"Content-Type": "application/x-npy"}, b"what"), r"can't be read as application/x-npy"),
        ((200, {"Content-Type": "application/x-npy"}, npy(np.zeros((7, 2)))), r"gives outputs \[7, 2\] for 7 images; "
         r"needed: \[7, 3\], because the data has 3 classes"),
        ((200, {"Content-Type": "application/x-npy"}, npy(np.full((7, 3), np.nan))), r"outputs that are not finite"),
        ((200, {"Content-Type": "application/x-npy"}, npy(np.full((7, 3), "a"))), r"numbers of type <U1"),
        ((200, {"Content-Type": "application/x-npy"}, npy(np.array([object()]))), r"can't be read as .*npy .*pickle"),
    ],
)  # fmt: skip
def test_what_a_server_does_wrong_is_said_and_nothing_is_kept(
    server: Server, tmp_path: Path, failure: Any, words: str
) -> None:
    server.failures = [failure] * 3
    with pytest.raises(UserError, match=rf"teacher.source {re.escape(server.address)}: .*{words}"):
        teacher_at(server, tmp_path)(pixels() / 255)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with served(3) as gone:
        pass
    with pytest.raises(UserError, match=r"no answer after 3 tries \(URLError: \[Errno \d+\] Connection refused\)"):
        teacher_at(gone, tmp_path)(pixels() / 255)


def test_the_token_is_sent_and_never_said(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_TOKEN", " s3cret\n")
    teacher = teacher_at(server, tmp_path, token="MY_TOKEN")
    teacher(pixels() / 255)
    assert server.tokens == ["Bearer s3cret"]
    assert all(b"s3cret" not in path.read_bytes() for path in tmp_path.iterdir())
    server.failures = [(403, {}, b"not for Bearer s3cret")]
    with pytest.raises(UserError, match=r"not for Bearer \*\*\*"):
        teacher(pixels(seed=1) / 255)
    for unsendable in ("s3cret\nline", "s3cret€"):
        monkeypatch.setenv("MY_TOKEN", unsendable)
        with pytest.raises(UserError, match=r"the token in MY_TOKEN holds letters that can't be sent") as error:
            teacher_at(server, token="MY_TOKEN")
        assert "s3cret" not in str(error.value)
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(
        UserError, match=r"teacher.http.token names the environment variable MY_TOKEN, which is not set"
    ):
        teacher_at(server, token="MY_TOKEN")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http:///predict", r"names no host"),
        ("http://me:pw@localhost/predict", r"holds a user name or a password"),
        ("http://[::1/predict", r"is no valid address"),
        ("http://localhost:80a/predict", r"is no valid address"),
        ("http://localhost/my model", r"is no valid address"),
        ("http://me:pw@localhost/modèle", r"is no valid address"),
    ],
)
def test_addresses_that_are_refused(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        HttpTeacher(address, CLASSES, QUICK)
    assert "pw" not in str(error.value)


def test_a_damaged_file_of_answers_is_named(server: Server, tmp_path: Path) -> None:
    teacher = teacher_at(server, tmp_path)
    (tmp_path / f"{teacher.own_key}.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(UserError, match=r"sqlite: the kept answers of the teacher can't be read or written"):
        teacher(pixels() / 255)


def test_outputs_of_another_kind_are_recognised(server: Server) -> None:
    server.change = lambda outputs: np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    known = ImageSet(pixels(), torch.arange(7) % 3)
    teacher = open_teacher(server.address, CLASSES, known, http=QUICK)
    assert "its outputs for training images are probabilities" in teacher.note
    expected = pixels().numpy().reshape(7, 256) / 255 @ weight(3) + 0.5
    outputs = teacher(pixels() / 255).softmax(1)
    np.testing.assert_allclose(outputs.numpy(), torch.from_numpy(expected).softmax(1).numpy(), atol=1e-4)


@pytest.mark.parametrize("as_json", [False, True])
def test_answers_far_from_zero_in_the_labels_unit_stay_exact(server: Server, tmp_path: Path, as_json: bool) -> None:
    seconds = torch.arange(7, dtype=torch.float64)
    known = ImageSet(seconds.to(torch.uint8).view(-1, 1, 1, 1).expand(7, 1, 16, 16), 1.7e9 + seconds)
    server.weights, server.as_json = np.full((256, 1), 255 / 256), as_json
    server.change = lambda outputs: np.floor(outputs) + 1.7e9
    task = Regression(1.7e9, 1.7e9 + 6)
    for _ in range(2):  # the second time the answers come from the file
        teacher = open_teacher(server.address, task, known, outputs="label_unit", http=QUICK, folder=tmp_path)
        assert teacher.note == ""
        outputs = teacher(known.images / 255)
        assert outputs.dtype == torch.float32
        torch.testing.assert_close(outputs[:, 0], (seconds / 6).float(), rtol=0.0, atol=1e-6)
    assert server.images == [7]


# --- a whole run --------------------------------------------------------------------------------------------------


@pytest.fixture
def digits_server() -> Iterator[Server]:
    with served(10) as running:
        yield running


def test_a_run_goes_on_where_the_server_stopped_and_a_rerun_asks_nothing(
    digits_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    recipe = tiny(
        f"teacher.source={digits_server.address}", "teacher.http={batch_size: 50, wait: 0, tries: 2, token: MY_TOKEN}",
        "compare.methods=[kd]", "student.fit.augment.views=2", "metrics.generator=false",
    )  # fmt: skip
    out = tmp_path / "run"
    digits_server.most = 6
    with pytest.raises(UserError, match="no answer after 2 tries"):
        run.run(recipe, out)
    before = sum(digits_server.images)
    digits_server.most = None
    results = run.run(recipe, out)
    whole = sum(digits_server.images)
    assert before > 100
    run.run(recipe, out)
    assert sum(digits_server.images) == whole
    assert stages(out, "score_black_box")[0].name == Path(results["artifacts"]["teacher"]).name
    (kept,) = (out / "answers").iterdir()
    with contextlib.closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM answers64").fetchone() == (whole,)  # each image was sent once
    assert results["teacher"]["network"] == digits_server.address.removeprefix("http://")
    said = [path for path in out.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert said == []
    assert json.loads((out / "results.json").read_text())["rows"][0]["method"] == "kd"


def test_a_server_for_other_classes_is_refused_before_anything_is_trained(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gives outputs \[32, 3\] for 32 images; needed: \[32, 10\], because the data"):
        run.run(tiny(f"teacher.source={server.address}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
