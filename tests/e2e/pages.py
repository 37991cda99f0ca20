"""The code blocks of the pages in docs/."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def code(page: str, title: str) -> list[str]:
    """The Python blocks of one section of a page."""
    section = (DOCS / page).read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
