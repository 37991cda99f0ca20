"""A run's folder must not lie among the images that it reads."""

from __future__ import annotations

from pathlib import Path

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.paths import is_folder


def check_apart(out: Path, settings: DataSettings) -> None:
    """UserError where the folder of a run would lie among class folders, because it would be read as a class, or in
    the folder of unlabelled images, which would hold its pictures."""
    path = Path(settings.source)
    if settings.unlabelled is not None and out.resolve().is_relative_to(Path(settings.unlabelled).resolve()):
        raise UserError(f"--out {out} lies in data.unlabelled {settings.unlabelled}; needed: a folder elsewhere")
    if settings.split_folders or not is_folder(path) or not out.resolve().is_relative_to(path.resolve()):
        return  # split_folders: folders of other names are left out
    from cgankd.data.folder_tree import scan  # imports torch

    top = scan(path, strict=False).top
    if any(folder.images for inner in top.folders for folder in inner.every()) and not any(
        folder.tables for folder in top.every()
    ):
        raise UserError(
            f"--out {out} lies in data.source {path}, where every folder is a class or a split; needed: a folder "
            f"elsewhere, such as --out {path.resolve().parent / 'runs' / out.name}"
        )
