"""A teacher behind an address: a real server in a thread, which answers with the linear map, or fails as it is told."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from answering_teachers import weight

Reply = tuple[int, dict[str, str], bytes]


def npy(array: Any) -> bytes:
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


class Server:
    """failures: what the next requests get in place of an answer; then all are answered. "drips": an answer in parts,
    which each come in time. as_json: the form of replies.

    images: the number of images of each answered request. tokens: the Authorization of each request.
    """

    def __init__(self, outputs: int) -> None:
        self.weights, self.as_json = weight(outputs), False
        self.failures: list[Reply | str] = []
        self.images: list[int] = []
        self.tokens: list[str | None] = []
        self.change: Callable[[Any], Any] = lambda outputs: outputs
        self.most: int | None = None  # answered requests; later ones fail
        self.address = ""

    def reply(self, pixels: np.ndarray) -> Reply:
        assert pixels.dtype == np.uint8
        if self.most is not None and len(self.images) >= self.most:
            return 503, {}, b"overloaded"
        self.images.append(len(pixels))
        outputs = self.change((pixels.reshape(len(pixels), -1) / 255).astype(np.float32) @ self.weights + 0.5)
        if self.as_json:
            return 200, {"Content-Type": "application/json"}, json.dumps({"outputs": outputs.tolist()}).encode()
        return 200, {"Content-Type": "application/x-npy"}, npy(outputs)


@contextlib.contextmanager
def served(outputs: int) -> Iterator[Server]:
    """A server at ``address`` until the block ends."""
    server = Server(outputs)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.tokens.append(self.headers.get("Authorization"))
            failure = server.failures.pop(0) if server.failures else None
            if failure == "slow":
                time.sleep(0.6)
            drips, failure = failure == "drips", None if failure == "drips" else failure
            if isinstance(failure, str):  # no reply at all
                self.close_connection = True
                return
            status, headers, content = failure or server.reply(np.load(io.BytesIO(body)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # nobody waits for the rest
                for place in range(0, len(content), 30 if drips else len(content) or 1):
                    time.sleep(0.1 * drips)
                    self.wfile.write(content[place : place + 30] if drips else content)

        def do_GET(self) -> None:
            raise AssertionError("images are posted")

        def log_message(self, *args: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{listening.server_port}/predict"
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
