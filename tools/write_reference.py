"""Write the pages of docs/reference/ from the code: settings, commands, methods, networks, recipes.

    python tools/write_reference.py            write the pages
    python tools/write_reference.py --check    exit code 1 and the names of the pages that are out of date

commands.md is checked only where it was written with the typer that is installed, because typer's form of it changes.

The pages are in the repository, so that links to them work there too. A test compares them with the code.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import typer
import typer.main
from settings_tables import settings_page
from typer.cli import get_docs_for_click

from cgankd.cli.lists import OTHER_METHODS
from cgankd.cli.main import app
from cgankd.cli.recipes import homes
from cgankd.config.recipe import Recipe
from cgankd.continual.settings import Continual
from cgankd.distill import catalogue
from cgankd.lm.settings import LanguageRecipe
from cgankd.nets import zoo

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by tools/write_reference.py; edit the code that this page describes instead. -->\n\n"
TYPER = f"<!-- typer {metadata.version('typer')} -->"
HOW_TO_SET = """
A setting is given in a recipe (a YAML file, nested), or after a recipe's name on the command line as `key=value`, in
quotes where the value has characters that a shell reads: `'seeds=[0,1]'`. `cgankd show RECIPE` prints all settings of a
recipe. An unknown key is refused with the keys that are allowed. A run names the changed settings that have no
effect in its recipe, with the reason.

- *none* and *true*, *false* are typed as such; for a setting that may also be text, no value is typed `null`, because
  `none` may be a name there: `teacher.source=null`.
- *kind*: some settings have several kinds, each with settings of its own. `synthesis.subsampling=quantile` chooses a
  kind, `synthesis.subsampling.q=0.95` sets one of its numbers; in YAML `subsampling: {kind: quantile, q: 0.95}`.
- *on or off*: `true` means on with the defaults of the settings below it, `none` or `false` off.
- A default in a *recipe that comes with the package* may be another one; `cgankd show RECIPE` has the last word.
"""


def main(words: list[str]) -> int:
    """Write or check the pages; the exit code."""
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        there = path.read_text(encoding="utf-8") if path.is_file() else ""
        other_typer = name == "commands.md" and "--check" in words and TYPER not in there
        if there != text and not other_typer:
            stale.append(name)
            if "--check" not in words:
                path.write_text(text, encoding="utf-8")
    if stale:
        print("out of date:" if "--check" in words else "written:", ", ".join(stale))
    return 1 if stale and "--check" in words else 0


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    return {
        "settings.md": NOTE + settings_page("Settings of cgankd run", Recipe, HOW_TO_SET),
        "settings-continual.md": NOTE + settings_page("Settings of cgankd continual", Continual, _as_for_run()),
        "settings-lm.md": NOTE + settings_page("Settings of cgankd lm", LanguageRecipe, _as_for_run()),
        "commands.md": NOTE + commands_page(),
        "methods.md": NOTE + methods_page(),
        "networks.md": NOTE + networks_page(),
        "recipes.md": NOTE + recipes_page(),
    }


def commands_page() -> str:
    """Every command with its arguments and options, by typer."""
    group = typer.main.get_command(app)
    context = typer.Context(group, **group.context_settings)
    text = get_docs_for_click(obj=group, ctx=context, name="cgankd", title="Commands")
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)  # their cut-off first sentences; all follow in full
    text = text.replace("```console\n$ ", "```text\n")  # a pattern, not a command to copy
    return f"{text.rstrip()}\n\n{TYPER}\n"


def methods_page() -> str:
    """Every distillation method with its facts and its docstring, as ``cgankd methods NAME`` prints them."""
    parts = [
        "# Distillation methods: all facts\n\nWhat `cgankd methods NAME` prints. How to choose and combine methods: "
        f"[methods.md](../methods.md). {OTHER_METHODS}\n"
    ]
    for name in sorted(catalogue.METHODS):
        facts, text = catalogue.details(name)
        title = facts.pop("method")
        rows = "".join(f"| {heading} | {_cell(fact)} |\n" for heading, fact in facts.items())
        body = text.replace("<", "\\<").replace("*", "\\*").replace("_", "\\_")
        parts.append(f"## `{name}`\n\n{title.partition(': ')[2]}\n\n| | |\n| --- | --- |\n{rows}\n{body}\n")
    return "\n".join(parts)


def networks_page() -> str:
    """Every network of the zoo with its number of parameters."""
    counts = zoo.parameter_counts(in_channels=3, num_outputs=10, image_size=(32, 32))
    rows = "".join(f"| `{name}` | {count:,} |\n" for name, count in counts.items())
    return (
        "# Networks\n\nFor `student.network`, `teacher.network` and `network` of `cgankd continual`. Also allowed: "
        "`timm/NAME` (`pip install 'cgankd[timm]'`), and your own as `module:function` "
        "([your-own.md](../your-own.md)). `+vam` after a name adds attention over blocks of its filters "
        "([methods.md](../methods.md)).\n\n| network | parameters at 3x32x32, 10 classes |\n| --- | ---: |\n" + rows
    )


def recipes_page() -> str:
    """Every recipe that comes with the package, with its file."""
    parts = [
        "# Recipes\n\n`cgankd COMMAND RECIPE` runs one, `cgankd show RECIPE` prints all its settings. A recipe of your "
        "own may begin with `extends: RECIPE` and hold only what differs.\n"
    ]
    for command, home in homes().items():
        for name, path in home.ready().items():
            text, about = path.read_text(encoding="utf-8").strip(), home.load(name).description
            parts.append(f"## `{name}`\n\n{about}\n\n```yaml\n# cgankd {command} {name}\n{text}\n```\n")
    return "\n".join(parts)


def _as_for_run() -> str:
    return "\nHow a setting is given, and what *kind* and *on or off* mean: [settings.md](settings.md).\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
