"""Whether everything that a finished run depends on is as it was: then its command can be answered without torch.

What is stale is for the stages' keys to say, which need torch and the images. Here settings, the program, the machine,
and sizes and times of files are compared, as by make. Where all of them are as they were, so are the keys. Where
something differs, or where it isn't known what a run reads, the keys decide.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cgankd._version import __version__
from cgankd.core.addresses import is_remote
from cgankd.core.errors import UserError
from cgankd.core.files import STUDENT_FILES, read_json, write_text
from cgankd.core.paths import ABLATION, PAGE, RECIPE, REJECTED, RESULTS, TABLE, TABLE_FILES
from cgankd.core.status_file import NAME as STATUS

STAMP = ".unchanged.json"
PACKAGED = {"digits", "fashion", "rotated-fashion"}  # data sets that come with the program or with a library
# data sets in $CGANKD_DATA, also where a folder here has such a name
FETCHED = {
    "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet", "imagenet-100", "rc49", "utkface", "steering-angle",
    "chairs",
}  # fmt: skip
BESIDE = TABLE_FILES | {".onnx"}  # files that name others in their folder
# what a run leaves in its folder; the status tells of any other command that was started there
WRITTEN = {
    RESULTS, RECIPE, PAGE, REJECTED, STATUS, TABLE, ABLATION, "artifacts",
    *(f"student{ending}" for ending in STUDENT_FILES.values()),
}  # fmt: skip
PASSING = {"work", "cache", "answers", "tensorboard"}  # what it leaves there and does without
PROGRAM = {".py", ".jinja", ".npz"}  # of this package's files; its recipes are in the settings
TEXTS = {"name", "description"}  # settings that are no paths
MOST_FILES = 50_000  # looking at each takes 8 microseconds here, on a disk of the machine


class Unknown(Exception):
    """It can't be said by files alone whether something has changed."""


def before_run(folder: Path, settings: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    """A hash of all that a run depends on; None where that is not known. To be taken before the run reads its images.

    folder: of the run, which may lie among its inputs. settings: of its recipe. options: of its command. Both are JSON
    values.
    """
    try:
        parts = {
            "settings": settings,
            "options": options,
            "program": [__version__, sys.version, *_program()],
            "machine": [platform.node(), str(Path.cwd()), *sorted(map(str, Path("/dev").glob("nvidia*")))],
            "variables": {name: os.environ[name] for name in sorted(os.environ) if _matters(name)},
            "inputs": sorted(_looks(_inputs(settings), folder)),
        }
    except (Unknown, OSError):
        return None
    return _hash(parts)


def after_run(folder: Path) -> str | None:
    """A hash of sizes and times of what a run has written to its folder; None where there is too much of it."""
    try:
        return _hash(sorted(_looks(folder / name for name in WRITTEN)))
    except (Unknown, OSError):
        return None


def keep(folder: Path, before: str | None, said: Mapping[str, Any]) -> None:
    """Note what a finished run depended on and has written, and what its command has ``said``, as JSON values.

    Where nothing can be written the run is finished all the same.
    """
    after = after_run(folder)
    with contextlib.suppress(OSError, UserError):
        if before is None or after is None:
            (folder / STAMP).unlink(missing_ok=True)
        else:  # as ASCII, because names of files need not be UTF-8
            write_text(folder / STAMP, json.dumps({"before": before, "after": after, "said": said}), durable=False)


def said_before(folder: Path, before: str | None) -> dict[str, Any] | None:
    """What the command of the finished run has said, where nothing has changed; else None."""
    try:
        kept = read_json(folder / STAMP)
        same = before is not None and (kept["before"], kept["after"]) == (before, after_run(folder))
        return dict(kept["said"]) if same else None
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None


def _matters(variable: str) -> bool:
    return variable.startswith(("CGANKD_", "CUDA_", "HIP_", "ROCR_"))


def _program() -> Iterator[list[Any]]:
    """This package's files, and the folders of packages, whose times tell when one was installed."""
    packages = [Path(folder) for folder in sys.path if folder.endswith("-packages")]  # site-packages, dist-packages
    own = (path for path in Path(__file__).parents[1].rglob("*.*") if path.suffix in PROGRAM)
    for path in [*sorted(own), *packages]:
        yield [str(path), *_look(str(path))]


def _inputs(settings: Mapping[str, Any]) -> Iterator[Path]:
    """The files and folders that the settings name. Raises Unknown for code, addresses and downloaded weights, whose
    content may change."""
    source = settings["data"]["source"]
    if source in FETCHED or (source not in PACKAGED and not Path(source).exists()):
        raise Unknown
    for text in _texts(settings):
        if ":" in text or is_remote(text) or text.startswith("timm/"):
            raise Unknown
        path = Path(text)
        if text and path.exists():
            yield path.parent if path.suffix.lower() in BESIDE else path


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            if name not in TEXTS:
                yield from _texts(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _texts(value)
    elif isinstance(tree, str):
        yield tree


def _looks(paths: Iterable[Path], folder: Path | None = None) -> Iterator[list[Any]]:
    """Paths of these files and folders and of all in them, with sizes and times of files; but for what a run writes to
    its ``folder``. Raises Unknown for too many."""
    own = None if folder is None else folder.absolute()
    count = 0
    for path in paths:
        yield [str(path), *(() if path.is_dir() else _look(str(path)))]
        for top, folders, names in os.walk(path, followlinks=True):
            if Path(top).absolute() == own:
                folders[:], names[:] = filter(_is_users, folders), filter(_is_users, names)
            elif not folders and not names:
                yield [top]  # an empty folder may be a class
            for name in names:
                count += 1
                if count > MOST_FILES:
                    raise Unknown
                yield [f"{top}/{name}", *_look(f"{top}/{name}")]


def _is_users(name: str) -> bool:
    """Whether something in a run's folder is not the run's."""
    return name not in WRITTEN | PASSING and not name.startswith(".")


def _look(path: str) -> list[int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - of many files
    except FileNotFoundError:
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
