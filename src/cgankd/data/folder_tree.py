"""What lies in a folder and below it. Links are followed; what systems and programs leave behind is left out.

Everything that is left out is counted, so that a note can tell of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cgankd.core.errors import UserError
from cgankd.data.image_files import SUFFIXES

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# Thumbnails, caches and views that are no files of the user's; what begins with a dot is hidden anyway.
LITTER = {
    "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__macosx",
    "__pycache__", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
}  # fmt: skip


@dataclasses.dataclass
class Folder:
    """One folder: its sub-folders, images and tables, sorted by name, and how many other files it has."""

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
        """How many files are neither images nor tables, here and below."""
        return sum(folder.others for folder in self.every())


@dataclasses.dataclass
class Tree:
    """A folder with all below it. litter: what was left out, by name; linked: whether a link was followed."""

    top: Folder
    litter: Counter[str]
    linked: bool

    def notes(self) -> tuple[str, ...]:
        """Sentences about what was left out, and about files that two paths lead to."""
        notes = []
        if self.litter:
            parts = ", ".join(f"{name} ({count:,})" for name, count in sorted(self.litter.items()))
            notes.append(f"hidden files and what systems leave behind were left out: {parts}")
        if self.linked:
            images = self.top.all_images()
            twice = len(images) - len({os.path.realpath(path) for path in images})
            notes += [f"{twice:,} images are reached by two paths, by way of links"] * bool(twice)
        return tuple(notes)


def scan(folder: Path, strict: bool = True) -> Tree:
    """All that lies in ``folder``.

    Raises UserError for a folder that can't be read, for a link that leads back to a folder it lies in, and for one
    that leads nowhere where a folder may be meant. strict: false: these are passed over.
    """
    tree = Tree(Folder(folder), Counter(), False)
    above = {}
    for parent in folder.resolve().parents:
        with contextlib.suppress(OSError):  # one that may not be looked at can't be walked into either
            above[_identity(parent)] = parent
    _fill(tree, tree.top, above, strict)
    return tree


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def is_litter(path: Path) -> bool:
    """Whether a path, relative to the user's folder, leads to a known kind of litter."""
    return any(_litter(part) not in (None, "other hidden files") for part in path.parts)


def _litter(name: str) -> str | None:
    """What a note calls a name that is left out; None for the user's own."""
    if name.casefold() in LITTER:
        return name.strip()
    if name.startswith("._"):
        return "._*"
    if name.startswith("."):
        return name if name in (".DS_Store", ".ipynb_checkpoints") else "other hidden files"
    return None


def _fill(tree: Tree, folder: Folder, above: dict[tuple[int, int], Path], strict: bool) -> None:
    """Read one folder and what is below it; ``above``: the folders that it lies in, by their identity."""
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
                f"{folder.path}: the link leads back to {above[identity]}, in which it lies; allowed: links to other "
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
        folder.images.append(path)  # a link to nowhere too: it is named with all other broken images
    elif link and not path.suffix and not path.exists():
        if strict:
            raise UserError(f"{path}: the link leads nowhere ({path.readlink()}); allowed: links to files and folders")
    elif path.name in TABLES:
        folder.tables.append(path)
    else:
        folder.others += 1
