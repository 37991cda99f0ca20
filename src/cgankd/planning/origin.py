"""The first line of a recipe that ``cgankd init`` wrote: for what it was made, and whether it was edited since."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

BEGIN = "# Made by cgankd init: "


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a recipe was made for. settings: of the user, as key=value. parts: the expected seconds of its run.

    edited: whether the file is no longer as it was written.
    """

    source: str
    settings: tuple[str, ...]
    budget: str
    parts: Mapping[str, float]
    edited: bool = False


def signed(text: str, source: str, settings: Sequence[str], budget: str, parts: Mapping[str, float]) -> str:
    """The recipe's text with a first line that :func:`origin_of` reads."""
    facts = {
        "source": source,
        "settings": list(settings),
        "budget": budget,
        "seconds": {part: round(each) for part, each in parts.items()},
    }
    return f"{BEGIN}{json.dumps({**facts, 'checksum': _checksum(text)})}\n{text}"


def origin_of(path: Path) -> Origin | None:
    """What the recipe at ``path`` was made for; None where it does not say so."""
    try:
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
        facts = json.loads(first.removeprefix(BEGIN)) if first.startswith(BEGIN) else {}
        edited = facts["checksum"] != _checksum(text)
        settings = tuple(str(setting) for setting in facts["settings"])
        parts = {str(part): float(seconds) for part, seconds in facts["seconds"].items()}
        return Origin(str(facts["source"]), settings, str(facts["budget"]), parts, edited)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
