"""What report.html was made from, as a hash that the page holds: a run that changed nothing need not draw it again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cgankd._version import __version__
from cgankd.core.paths import ABLATION, RECIPE, RESULTS
from cgankd.report.headline import EXPORTED

FILES = (RESULTS, RECIPE, ABLATION)


def made_from(folder: Path) -> str:
    """A hash of the files of a run's folder that its page shows, and of the code that draws the page.

    results.json names every artifact by its key, so the artifacts need not be read.
    """
    parts = [__version__.encode()]
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in {".py", ".jinja"}:
            parts.append(path.read_bytes())
    parts += [path.read_bytes() if (path := folder / name).is_file() else b"" for name in FILES]
    parts += [str((folder / name).stat().st_size).encode() for name in EXPORTED if (folder / name).is_file()]
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def is_current(page: Path) -> bool:
    """Whether the page of a run's folder is there, and shows what the folder holds now."""
    try:
        source = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return f'<meta name="made-from" content="{made_from(page.parent)}">' in source
