"""Addresses of files elsewhere, such as s3://bucket/images: what is one, and no password in it."""

from __future__ import annotations

import re

_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # two letters or more, because C: is a drive
_ON_HUB = re.compile(r"hf://datasets/[^/]+/[^/]+", re.IGNORECASE)
_HOST = re.compile(r"[^:/]*(:\d*)?")  # with a user's name and a port, but without a password; C: of file://C:/
_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s'\"/@]*:[^\s'\"]*@", re.IGNORECASE)
_QUERY = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"]+")


def is_remote(text: str) -> bool:
    """Whether ``text`` is an address that fsspec reads; hf://owner/name alone is a data set that `datasets` reads.

    >>> [is_remote(text) for text in ("s3://bucket/images", "hf://datasets/owner/name", "hf://owner/name", "C:/images")]
    [True, True, False, False]
    """
    return _PROTOCOL.match(text) is not None and (not text.lower().startswith("hf://") or bool(_ON_HUB.match(text)))


def secret_in(address: str) -> str | None:
    """Why an address may hold a secret, as a sentence that does not say it; None where it holds none.

    >>> secret_in("ftp://me:pw@host/a"), secret_in("sftp://me@host:22/a"), secret_in("/images/what?.npz")
    ('it holds a password', None, None)
    """
    if "://" not in address:
        return None
    for link in address.split("::"):  # zip://::https://host/a.zip
        begin = _PROTOCOL.match(link)
        if begin and not _HOST.fullmatch(link[begin.end() :].partition("/")[0].partition("?")[0]):
            return "it holds a password"
    return "the part behind ? may be a secret" if "?" in address else None


def masked(text: str) -> str:
    """``text`` with dots in place of what may be secret in its addresses.

    >>> masked("no ftp://me:pw@host/a, no https://host/b?token=c")
    'no ftp://...@host/a, no https://host/b?...'
    """
    return _QUERY.sub(r"\1?...", _PASSWORD.sub(r"\1...@", text))
