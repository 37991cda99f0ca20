"""Fetching: whole, resumed, cut off, and not what was published."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from cgankd.core.errors import UserError
from cgankd.data.download import download
from cgankd.data.public import Archive

CONTENT = np.random.default_rng(0).bytes(600_000)


class Serve(BaseHTTPRequestHandler):
    """CONTENT at any address; ``cut`` bytes at most per reply; ranges only where ``ranges``."""

    asked: ClassVar[list[str | None]] = []
    cut: ClassVar[int] = len(CONTENT)
    ranges: ClassVar[bool] = True

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Serve.asked.append(wanted)
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        start = int(match[1]) if match and Serve.ranges else 0
        self.send_response(206 if start else 200)
        self.end_headers()
        self.wfile.write(CONTENT[start : start + Serve.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Serve, "asked", [])
    monkeypatch.setattr(Serve, "cut", len(CONTENT))
    monkeypatch.setattr(Serve, "ranges", True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Serve)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/some.tar.gz"
    server.shutdown()
    server.server_close()
    thread.join()


def archive(address: str, content: bytes = CONTENT) -> Archive:
    return Archive(address, len(content), hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest())


def test_it_arrives_whole_with_progress_and_is_not_fetched_twice(address: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download(archive(address), tmp_path / "set", lambda done, size: seen.append((done, size)))
    assert path == tmp_path / "set" / "some.tar.gz"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert list(path.parent.iterdir()) == [path]
    assert download(archive(address), tmp_path / "set") == path
    assert len(Serve.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_what_was_cut_off_goes_on_where_it_stopped(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    monkeypatch.setattr(Serve, "cut", 250_000)
    with pytest.raises(UserError, match=r"it ended after 250,000 of 600,000 bytes.; the same command continues"):
        download(archive(address), tmp_path)
    assert not (tmp_path / "some.tar.gz").exists()
    monkeypatch.setattr(Serve, "cut", len(CONTENT))
    monkeypatch.setattr(Serve, "ranges", ranges)  # a server without ranges sends all of it again
    assert download(archive(address), tmp_path).read_bytes() == CONTENT
    assert Serve.asked == [None, "bytes=250000-"]


def test_another_file_than_the_published_one_is_deleted(address: str, tmp_path: Path) -> None:
    changed = archive(address, CONTENT[:-1] + b"!")
    with pytest.raises(UserError, match=r"the fetched file .600,000 bytes, MD5 .* is not the published file .*deleted"):
        download(changed, tmp_path)
    assert list(tmp_path.iterdir()) == []
    only_md5 = Archive(address, len(CONTENT), archive(address).md5, changed.sha256)
    with pytest.raises(UserError, match="is not the published file"):
        download(only_md5, tmp_path)


def test_an_address_that_does_not_answer(tmp_path: Path) -> None:
    nobody = archive("http://127.0.0.1:9/other.tar.gz")  # the discard port: nothing listens
    with pytest.raises(UserError, match=r"can't be fetched .*; the same command continues from here, or put other"):
        download(nobody, tmp_path)
