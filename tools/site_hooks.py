"""What mkdocs does beside reading docs/: the changelog and the contributing page of the repository become pages too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*\s(?:src|href)=["']?(?:https?:)?//[^>]*""")
BESIDE = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}  # page -> file of the repository


def on_files(files: Files, config: Any) -> Files:
    """Add the pages whose files lie outside docs/."""
    for page, name in BESIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to these files lead to their pages: (../CHANGELOG.md) becomes (changelog.md)."""
    for target, name in BESIDE.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}", f"]({target}", markdown)
    return markdown.replace("](README.md)", "](index.md)").replace("](../README.md)", "](index.md)")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Nothing is loaded from another host, so that the site can be read without a network."""
    if loaded := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from another host: {loaded[0]}")
    return output
