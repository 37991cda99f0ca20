"""A new folder where the user wants it: on this machine, or made here and then uploaded to an address."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem

from cgankd.core.addresses import is_remote, masked
from cgankd.core.errors import UserError, said
from cgankd.core.progress import SILENT, Progress
from cgankd.core.run_folder import new_folder
from cgankd.data.remote_files import TOGETHER, ByteCounter, failing_as, opened

HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/?(.*)")  # repository, revision, folder in it
READ_ONLY = ("http", "https")
BY_ITSELF = ".gitattributes"  # a new repository of the hub holds it


@contextlib.contextmanager
def new_place(out: str, progress: Progress = SILENT) -> Iterator[Path]:
    """Yields a temporary folder; when the block ends, its files are at ``out``, a new folder or a new address.

    Raises UserError where something is at ``out`` already, where it can't be written to, and where an upload fails; the
    temporary folder is then kept, and the message names it.
    """
    if not is_remote(out):
        if "://" in out:
            raise UserError(f"--out {masked(out)} is no address for files; allowed: hf://datasets/OWNER/NAME")
        with new_folder(Path(out)) as folder:
            yield folder
        return
    fs, root = _checked(out)
    folder, keep = Path(tempfile.mkdtemp(prefix="cgankd-")), False
    try:
        yield folder
        try:
            if (hub := HUB.fullmatch(out)) is not None:
                with progress.passing(f"upload to {out}", 0):
                    _push(folder, *hub.groups())
            else:
                _upload(fs, root, folder, out, progress)
        except Exception as error:  # each package raises its own errors
            keep = True
            reason = str(error) if isinstance(error, UserError) else f"{out}: {masked(said(error))}"
            raise UserError(
                f"{reason}; all files are in {folder}: upload them from there, or delete what is at the address and "
                "give the same command again"
            ) from None
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _checked(address: str) -> tuple[Any, str]:
    """The file system of an address and the path in it; UserError where something is there, or it can't be written."""
    if address.partition("://")[0] in READ_ONLY or "::" in address:
        raise UserError(
            f"--out {masked(address)}: files can't be written there; allowed: a folder, or a store such as "
            "s3://bucket/folder"
        )
    fs, root = opened(address)
    with failing_as(f"--out {address}"):
        fs.invalidate_cache()
        try:
            there = fs.ls(root, detail=False)
        except FileNotFoundError:
            there = []
        if any(path.strip("/") != root.strip("/") and not path.endswith(f"/{BY_ITSELF}") for path in there) or (
            there and fs.isfile(root)
        ):
            raise UserError(f"--out {address} is there already; a new or empty address is needed")
    return fs, root


def _upload(fs: Any, root: str, folder: Path, address: str, progress: Progress) -> None:
    # Tables before their images: where an upload ends early, a reader misses images that the table names.
    paths = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: (len(path.parts), path))
    there = {path: f"{root.rstrip('/')}/{path.relative_to(folder).as_posix()}" for path in paths}
    if not isinstance(fs, AsyncFileSystem):  # those are object stores, which have no folders, and would make a bucket
        for parent in sorted({path.rpartition("/")[0] for path in there.values()}):
            fs.makedirs(parent, exist_ok=True)
    size = sum(path.stat().st_size for path in paths)
    with progress.bar(f"upload to {address} (MB)", size / 1e6) as bar:
        bar.unit = "MB"
        counter = ByteCounter(lambda done: bar.to(done / 1e6))
        for start in range(0, len(paths), TOGETHER):
            some = paths[start : start + TOGETHER]
            try:
                fs.put([str(path) for path in some], [there[path] for path in some], callback=counter)
            except Exception as error:
                raise UserError(
                    f"{address}: the upload failed after at least {start:,} of {len(paths):,} files "
                    f"({masked(said(error))})"
                ) from None


def _push(folder: Path, repository: str, revision: str | None, inside: str) -> None:
    """All files as one commit to a data set of the hub; a repository that does not exist is made, and is private."""
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
    hub.upload_folder(
        repo_id=repository,
        folder_path=folder,
        path_in_repo=inside or None,
        repo_type="dataset",
        revision=revision,
        commit_message="Generated images of cgankd",
    )
