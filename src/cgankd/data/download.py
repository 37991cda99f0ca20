"""Fetch a public archive: resume an interrupted download, check the published digests, then rename the file."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cgankd.core.errors import UserError
from cgankd.core.files import sync
from cgankd.data.public import Archive

BLOCK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte


def download(archive: Archive, folder: Path, progress: Callable[[int, int], None] = lambda done, size: None) -> Path:
    """Fetch ``archive`` into ``folder`` unless it exists; ``progress(bytes, bytes of all)``. Returns its path.

    An interrupted download stays in a file of its own, and the next call continues it. Only a file with the right
    digests gets its final name. Raises UserError where the address can't be reached or has another file.
    """
    target = folder / archive.name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{archive.name}.part"
    try:
        _fetch(archive, part, progress)
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{archive.address} can't be fetched ({reason}); the same command continues from here, "
            f"or put {archive.name} into {folder} yourself"
        ) from None
    md5, sha256 = _digests(part)
    if (md5, sha256) != (archive.md5, archive.sha256):
        size = part.stat().st_size
        part.unlink()
        raise UserError(
            f"{archive.address}: the fetched file ({size:,} bytes, MD5 {md5}) is not the published file "
            f"({archive.size:,} bytes, MD5 {archive.md5}) and was deleted"
        )
    sync(part)
    part.replace(target)
    sync(folder)
    return target


def _fetch(archive: Archive, part: Path, progress: Callable[[int, int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= archive.size:
        return
    request = urllib.request.Request(archive.address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
        resumes = reply.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if resumes else 0
        with part.open("ab" if resumes else "wb") as stream:
            while block := reply.read(BLOCK):
                stream.write(block)
                have += len(block)
                progress(have, archive.size)
    if have < archive.size:
        raise ConnectionError(f"it ended after {have:,} of {archive.size:,} bytes")


def _digests(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256, hexadecimal."""
    digests = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            for digest in digests:
                digest.update(block)
    return digests[0].hexdigest(), digests[1].hexdigest()
