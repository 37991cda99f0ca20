"""What is at an address: fsspec's file system for it, the files with their versions, and errors in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import Callback

from cgankd.core.addresses import masked, secret_in
from cgankd.core.errors import UserError, did_you_mean, said
from cgankd.core.paths import portable

# What file systems call a hash of the content, and the time of the last change; the first that is there is used.
HASHES = ("etag", "md5hash", "contentmd5", "contenthash", "crc32c", "crc", "digest", "blobid", "sha", "sha256")
TIMES = ("mtime", "lastmodified", "modified", "modifiedtime", "modificationtime", "updated", "modify", "lastwritetime")
TOGETHER = 64  # files that are copied at once
FULL = {errno.ENOSPC, errno.EDQUOT}  # of this machine's disk; no fault of the other side


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """path: as its file system names it. size: in bytes; None: not known. mark: of its content; "": there is none."""

    path: str
    size: int | None
    mark: str

    @property
    def version(self) -> str:
        """Changes where the file has changed, as far as the other side tells."""
        return f"{self.size}, {self.mark}"


def opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises UserError for an address with a secret, an unknown protocol, and where its package is missing.
    """
    protocol = address.partition("://")[0]
    if (reason := secret_in(address)) is not None:
        raise UserError(f"an address of {protocol}:// can't be used, because {reason}")
    known = fsspec.available_protocols()
    for link in address.split("::"):
        if "://" in link and (name := link.partition("://")[0]) not in known:
            raise UserError(f"{address}: fsspec knows no {name}://{did_you_mean(name, known)}")
    try:
        fs, root = fsspec.url_to_fs(address)
    except ImportError as error:
        raise UserError(f"{address}: a package is missing: {' '.join(str(error).split())}") from None
    except Exception as error:  # each package raises its own errors, such as for missing credentials
        raise UserError(f"{address} can't be opened: {masked(said(error))}") from None
    return fs, root


@contextlib.contextmanager
def failing_as(address: str, what: str = "can't be read") -> Iterator[None]:
    """An error of the other side becomes a UserError; that this machine's disk is full stays what it is."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else error  # of http: also a dead network
        if cause is None or isinstance(cause, FileNotFoundError):
            raise UserError(f"{address} {what}: there is no such file or folder") from None
        raise UserError(f"{address} {what}: {masked(said(cause))}") from None


def list_files(fs: Any, root: str, address: str) -> dict[str, RemoteFile]:
    """The files at an address by their paths, which begin with the name of the file or the folder: images/cat/1.png.

    Raises UserError where there are none, for a path that would lead out of the folder, and for linked folders.
    """
    with failing_as(address):
        fs.invalidate_cache()  # listings are kept, by object stores as long as the process lives
        if (info := fs.info(root))["type"] == "file":
            if root.endswith("/"):
                raise UserError(f"{address} names a folder, which http has not; allowed: the address of one file")
            name = portable(_last(root)[-100:])
            return {name: _described(fs, root, info)}
        name = portable(_last(address)[-100:])
        files = {}
        for path, info in sorted(_found(fs, root).items()):
            if path.endswith("/") or path == root or not _is_file(fs, path, info, address):
                continue  # object stores may hold an empty object for a folder
            files[f"{name}/{_inner(path, root, address)}"] = _described(fs, path, info)
    if not files:
        raise UserError(f"{address} is an empty folder; needed: images")
    _check_folders(files, address)
    return files


def _found(fs: Any, root: str) -> dict[str, Any]:
    """What is below a folder. fsspec's own walk is not used, because it leaves out folders that it can't list."""
    own = type(fs)._find is AsyncFileSystem._find if isinstance(fs, AsyncFileSystem) else (
        type(fs).find is fsspec.AbstractFileSystem.find
    )  # fmt: skip
    if not own:  # an object store, which lists all its files at once
        return dict(fs.find(root, detail=True))
    found: dict[str, Any] = {}
    folders = [root]
    while folders:
        folder = folders.pop()
        inside = {info["name"]: info for info in fs.ls(folder, detail=True) if info["name"].rstrip("/") != folder}
        folders += [path for path, info in inside.items() if info["type"] == "directory"]
        found |= inside
    return found


def _last(path: str) -> str:
    """The last name in a path or an address: zip://::s3://bucket/a.zip has a.zip."""
    return re.split(r"[/:]+", path.rstrip("/:"))[-1]


def _is_file(fs: Any, path: str, info: Mapping[str, Any], address: str) -> bool:
    """Whether it is a file; pipes and devices, and links that lead nowhere, are not."""
    if info["type"] in ("file", "directory"):
        return info["type"] == "file"
    if fs.isdir(path):
        raise UserError(f"{address}: {path} is a link to a folder, which is not followed; allowed: folders and files")
    return fs.isfile(path)


def _inner(path: str, root: str, address: str) -> str:
    """The path below ``root``; UserError where it is not below, or could be written elsewhere than into a folder."""
    above = f"{root.rstrip('/')}/" if root else ""
    inner = path.removeprefix(above).removeprefix("" if root else "/")
    parts = inner.split("/")
    elsewhere = PureWindowsPath(inner)
    unsafe = {"", ".", ".."} & set(parts) or "\\" in inner or "\0" in inner or elsewhere.drive or elsewhere.root
    if unsafe or not path.startswith(above):
        raise UserError(
            f"{address}: the name {path!r} can't be a file below a folder; allowed: names without '..', '\\' and empty "
            "parts"
        )
    return inner


def _check_folders(files: Mapping[str, RemoteFile], address: str) -> None:
    """UserError where a name is both a file and a folder, as is possible in object stores."""
    for path in files:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if (above := "/".join(parts[:end])) in files:
                raise UserError(f"{address}: {files[above].path} is both a file and a folder; rename one of them")


def _described(fs: Any, path: str, info: Mapping[str, Any]) -> RemoteFile:
    if info.get("islink"):
        info = fs.info(path)  # of the file that the link leads to
    facts = {key.lower().replace("-", "").replace("_", ""): value for key, value in info.items()}
    marks = [f"{name} {facts[name]}" for name in (*HASHES, *TIMES, "created") if facts.get(name) is not None]
    size = info.get("size")
    return RemoteFile(path, None if size is None else int(size), marks[0] if marks else "")


class ByteCounter(Callback):  # type: ignore[misc]  # fsspec has no types
    """Counts the bytes of several files as they are copied, and calls ``moved`` with their number so far."""

    def __init__(self, moved: Callable[[int], None]) -> None:
        super().__init__()
        self._moved, self._bytes = moved, 0

    def branched(self, path_1: str, path_2: str, **kwargs: Any) -> Callback:
        return _OneFile(self.add)

    def add(self, count: int) -> None:
        self._bytes += count
        self._moved(self._bytes)


class _OneFile(Callback):  # type: ignore[misc]
    def __init__(self, add: Callable[[int], None]) -> None:
        super().__init__()
        self._add = add

    def relative_update(self, inc: int = 1) -> None:
        self._add(inc)
