"""The content of a folder and its sub-folders. Links are followed; hidden files and system files are left out.

Everything that is left out is counted for a note.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cgankd.core.errors import UserError
from cgankd.core.numbers import counted
from cgankd.data.image_files import SUFFIXES

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# Thumbnails, caches and settings that systems and programs write; names that begin with a dot are left out anyway.
LITTER = {
    "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__macosx",
    "__pycache__", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
}  # fmt: skip


@dataclasses.dataclass
class Folder:
    """One folder: its sub-folders, images and tables, sorted by name, and the number of its other files."""

    path: Path
    folders: list[Folder] = dataclasses.field(default_factory=list)
    images: list[Path] = dataclasses.field(default_factory=list)
    tables: list[Path] = dataclasses.field(default_factory=list)
    others: int = 0

    @property
    def name(self) -> str:
        return self.path.name

    def every(self) -> Iterator[Folder]:
        """This folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.every()

    def all_images(self) -> list[Path]:
        """The images of this folder and all below it, sorted by path."""
        return sorted(path for folder in self.every() for path in folder.images)

    def all_others(self) -> int:
        """The number of files that are neither images nor tables, here and below."""
        return sum(folder.others for folder in self.every())


@dataclasses.dataclass
class Tree:
    """A folder with all below it. litter: counts of what was left out, by name. linked: whether it has links."""

    top: Folder
    litter: Counter[str]
    linked: bool

    def notes(self) -> tuple[str, ...]:
        """Sentences about what was left out, and about files with two paths."""
        notes = []
        if self.litter:
            parts = ", ".join(f"{name} ({count:,})" for name, count in sorted(self.litter.items()))
            notes.append(f"hidden files and system files were left out: {parts}")
        if self.linked:
            images = self.top.all_images()
            twice = len(images) - len({os.path.realpath(path) for path in images})
            notes += [f"{counted(twice, 'image has', 'images have')} two paths, because of links"] * bool(twice)
        return tuple(notes)


def scan(folder: Path, strict: bool = True) -> Tree:
    """The content of ``folder``.

    Raises UserError for a folder that can't be read, for a link to a folder that contains it, and for a broken link
    that may be meant as a folder. strict: false ignores these.
    """
    tree = Tree(Folder(folder), Counter(), False)
    above = {}
    for parent in folder.resolve().parents:
        with contextlib.suppress(OSError):  # a folder that can't be read can't be entered through a link either
            above[_identity(parent)] = parent
    _fill(tree, tree.top, above, strict)
    return tree


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def is_litter(path: Path) -> bool:
    """Whether a path, relative to the user's folder, is a known kind of system file."""
    return any(_litter(part) not in (None, "other hidden files") for part in path.parts)


def _litter(name: str) -> str | None:
    """What a note calls a file that is left out; None for the user's own files."""
    if name.casefold() in LITTER:
        return name.strip()
    if name.startswith("._"):
        return "._*"
    if name.startswith("."):
        return name if name in (".DS_Store", ".ipynb_checkpoints") else "other hidden files"
    return None


def _fill(tree: Tree, folder: Folder, above: dict[tuple[int, int], Path], strict: bool) -> None:
    """Read one folder and all below it; ``above``: the folders that contain it, by their identity."""
    try:
        _read(tree, folder, above, strict)
    except OSError as error:
        if strict:
            raise UserError(f"{folder.path}: can't be read: {error.strerror}") from None


def _read(tree: Tree, folder: Folder, above: dict[tuple[int, int], Path], strict: bool) -> None:
    identity = _identity(folder.path)
    if identity in above:
        if strict:
            raise UserError(
                f"{folder.path}: the link leads back to {above[identity]}, which contains it; allowed: links to other "
                "folders"
            )
        return
    above = {**above, identity: folder.path}
    for path in sorted(folder.path.iterdir()):
        if (litter := _litter(path.name)) is not None:
            tree.litter[litter] += 1
        else:
            _add(tree, folder, path, above, strict)


def _add(tree: Tree, folder: Folder, path: Path, above: dict[tuple[int, int], Path], strict: bool) -> None:
    link = path.is_symlink()
    tree.linked |= link
    if path.is_dir():
        folder.folders.append(Folder(path))
        _fill(tree, folder.folders[-1], above, strict)
    elif path.suffix.lower() in SUFFIXES:
        folder.images.append(path)  # a broken link too, because it is reported with all other broken images
    elif link and not path.suffix and not path.exists():
        if strict:
            raise UserError(f"{path}: the link leads nowhere ({path.readlink()}); allowed: links to files and folders")
    elif path.name in TABLES:
        folder.tables.append(path)
    else:
        folder.others += 1
