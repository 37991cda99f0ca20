"""A teacher behind an address: images are posted to http://.. or https://.., and the outputs are read from the reply.

A request's body is an .npy file of uint8 [N, C, H, W]. A reply is an .npy file of floats [N, K], or JSON: the same
numbers as lists, alone or as the value of "outputs".
"""

from __future__ import annotations

import http.client
import io
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cgankd.config.settings import HttpSettings
from cgankd.core.addresses import masked
from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key
from cgankd.data.imageset import as_bytes, contents
from cgankd.tasks import Task
from cgankd.teachers.black_box import SETTING, BlackBox, checked
from cgankd.teachers.kept_answers import KeptAnswers

NPY, JSON = "application/x-npy", "application/json"
LONGEST_WAIT = 60.0  # seconds between two tries
MOST_BYTES = 64_000_000  # of a reply
LOCAL = {"localhost", "127.0.0.1", "::1"}
sleep = time.sleep


def is_address(source: str | None) -> bool:
    """Whether a teacher's source is an address.

    >>> is_address("http://localhost:8000/predict"), is_address("teacher.onnx"), is_address(None)
    (True, False, False)
    """
    return source is not None and source.lower().startswith(("http://", "https://"))


def check_address(source: str, what: str) -> None:
    """UserError, beginning with ``what``, for an address that can't be asked, or with a password in it."""
    try:
        parts = urllib.parse.urlsplit(source)
        right = parts.port != 0 and (parts.path + parts.query).isascii()
    except ValueError:  # brackets of an IPv6 address, or a port that is no number
        right = False
    if not right or any(letter <= " " or letter == "\x7f" for letter in source):
        raise UserError(
            f"{what} {masked(repr(source))} is no valid address; needed: one such as http://localhost:8000/predict, "
            "with other letters and spaces as %.."
        )
    if not parts.hostname:
        raise UserError(f"{what} {source!r} names no host; needed: an address such as http://localhost:8000/predict")
    if parts.username or parts.password:
        raise UserError(
            f"{what} holds a user name or a password, which would be written to files; needed: the address alone, and "
            "http.token, the name of an environment variable with a token"
        )


class HttpTeacher(BlackBox):
    """A server that answers images; a request that fails is tried again, and no image is sent twice.

    folder: where the answers are kept; None: in memory. Raises UserError where the address or the token can't be used,
    where no try succeeds, or where a reply is not finite floats [N, number of outputs].
    """

    def __init__(
        self, address: str, task: Task, settings: HttpSettings, setting: str = SETTING, folder: Path | None = None
    ) -> None:
        check_address(address, setting)
        self.address, self.settings, self.task = address, settings, task
        self.name = f"{setting} {address}"
        self.own_key = content_key("http", address, settings.version)
        self.answers = KeptAnswers(None if folder is None else folder / f"{self.own_key}.sqlite")
        self.asked = 0  # images that were sent
        self._token = _token(settings.token, setting)
        local = urllib.parse.urlsplit(address).hostname in LOCAL
        proxies = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(_NoRedirect(), *proxies)

    def raw_outputs(self, images: Tensor) -> Tensor:
        pixels = as_bytes(images)
        shape = repr(tuple(pixels.shape[1:])).encode()
        keys = [shape + key for key in contents(pixels)]
        kept, width = self.answers.of(list(dict.fromkeys(keys))), self.task.num_outputs
        known = {key: outputs for key, outputs in kept.items() if len(outputs) == width}  # others: of another task
        rows = {key: row for row, key in enumerate(keys) if key not in known}  # each image once
        missing = list(rows)
        for start in range(0, len(missing), self.settings.batch_size):
            part = missing[start : start + self.settings.batch_size]
            outputs = self._ask(pixels[[rows[key] for key in part]].numpy())
            answers = dict(zip(part, outputs.numpy(), strict=True))
            self.answers.keep(answers)
            known |= answers
        return torch.from_numpy(np.stack([known[key] for key in keys]))

    def _ask(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """The outputs for these images, from the server."""
        body = io.BytesIO()
        np.save(body, pixels)
        kind, reply = self._post(body.getvalue())
        outputs = self._numbers(kind, reply)
        self.asked += len(pixels)
        return checked(torch.from_numpy(outputs), len(pixels), self.task.num_outputs, self.name)

    def _post(self, body: bytes) -> tuple[str, bytes]:
        """The reply's content type and body, of the first try that succeeds."""
        headers = {"Content-Type": NPY, "Accept": f"{NPY}, {JSON}"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        wait, reason = self.settings.wait, ""
        for number in range(self.settings.tries):
            if number:
                sleep(min(wait, LONGEST_WAIT))
                wait = self.settings.wait * 2**number
            end = time.monotonic() + self.settings.timeout
            try:
                request = urllib.request.Request(self.address, body, headers, method="POST")
                with self._opener.open(request, timeout=self.settings.timeout) as response:
                    return response.headers.get_content_type(), self._body(response, end)
            except urllib.error.HTTPError as error:
                reason = self._status(error)
                if error.code != 429 and error.code < 500:
                    raise UserError(f"{self.name}: refuses the request ({reason})") from None
                wait = max(wait, _retry_after(error))
            except (OSError, http.client.HTTPException) as error:  # no connection, a broken one, or no reply in time
                reason = self._plain(f"{type(error).__name__}: {getattr(error, 'reason', error)}")
        raise UserError(
            f"{self.name}: no answer after {self.settings.tries} tries ({reason}); needed: a server that answers "
            f"within {self.settings.timeout:g} seconds (the same command continues with the answers so far)"
        )

    def _body(self, response: http.client.HTTPResponse, end: float) -> bytes:
        """The body, which must have come until ``end``: the opener's timeout is for each of its parts alone."""
        body = bytearray()
        while response.length != 0 and (part := response.peek()):
            body += response.read(len(part))
            if len(body) > MOST_BYTES:
                raise UserError(f"{self.name}: replies with more than {MOST_BYTES:,} bytes; needed: {self._form}")
            if time.monotonic() > end:
                raise TimeoutError("the reply is not complete")
        return bytes(body + response.read())  # nothing more; an error where announced bytes did not come

    def _status(self, error: urllib.error.HTTPError) -> str:
        try:
            text = error.read(2000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            text = ""
        if 300 <= error.code < 400:
            text = f"it sends the request on to {error.headers.get('Location')}; give that address"
        words = " ".join(text.split())[:200]
        return self._plain(f"HTTP {error.code} {error.reason}{': ' if words else ''}{words}")

    def _plain(self, text: str) -> str:
        return text.replace(self._token, "***") if self._token else text

    def _numbers(self, kind: str, reply: bytes) -> npt.NDArray[np.float64]:
        try:
            if kind == JSON:
                value: Any = json.loads(reply)
                array = np.asarray(value["outputs"] if isinstance(value, dict) else value, np.float64)
            elif kind == NPY:
                array = np.load(io.BytesIO(reply), allow_pickle=False)
            else:
                raise UserError(f"{self.name}: replies with content type {kind}; allowed: {NPY} or {JSON}")
        except UserError:
            raise
        except Exception as error:  # numpy and json raise errors of several classes
            raise UserError(
                f"{self.name}: its reply can't be read as {kind} ({type(error).__name__}: "
                f"{self._plain(' '.join(str(error).split())[:200])}); needed: {self._form}"
            ) from None
        if array.dtype.kind not in "fiu":
            raise UserError(f"{self.name}: replies with numbers of type {array.dtype}; needed: {self._form}")
        return array.astype(np.float64)

    @property
    def _form(self) -> str:
        return f"numbers [N, {self.task.num_outputs}], as {NPY} or {JSON}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses to follow a redirect, which would turn the request into one without images, and pass the token on."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None


def _token(variable: str | None, setting: str) -> str:
    if variable is None:
        return ""
    token = os.environ.get(variable, "").strip()
    if not token:
        raise UserError(
            f"{setting.rpartition('.')[0]}.http.token names the environment variable {variable}, which is not set; "
            f"needed: export {variable}=..."
        )
    if not token.isascii() or not token.isprintable():  # an error of http.client would show it
        raise UserError(
            f"{setting.rpartition('.')[0]}.http.token: the token in {variable} holds letters that can't be sent in a "
            "header; allowed: printable ASCII on one line"
        )
    return token


def _retry_after(error: urllib.error.HTTPError) -> float:
    try:
        return float(error.headers.get("Retry-After", 0))
    except ValueError:  # a date
        return 0.0
