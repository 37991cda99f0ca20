"""The documentation: its commands are parsed by the real commands, its generated pages are those of the code.

Parsed only: every command of README.md and docs/ but those in RUN. A parsed command has real options, a recipe that
exists, and overrides that the recipe accepts; its files (my_images/, teacher.pth, ..) are not there. ``make docs-test``
runs all commands of the tutorial in an empty folder.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from cgankd.cli import main
from cgankd.cli.recipes import homes
from cgankd.config import recipe
from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.distill import find, parts
from cgankd.nets import zoo
from cgankd.planning import doctor

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "reference")]
RUN = {  # cheap enough to run for real
    "cgankd recipes", "cgankd methods", "cgankd methods dkd", "cgankd networks", "cgankd data",
    "cgankd show digits", "cgankd continual", "cgankd doctor",
}  # fmt: skip
READS_RECIPES = {
    "run": "run",
    "table": "run",
    "ablate": "run",
    "synthesize": "run",
    "continual": "continual",
    "lm": "lm",
}
PLACEHOLDER = re.compile(r"^(RECIPE|NAME|FOLDER|DIR|SOURCE|FILE|COMMAND)$|^my_|\.yaml$|^photos|/$|^/data/|://")


def commands() -> Iterator[tuple[str, str]]:
    """(page:line, command) for every line of a code block that begins with cgankd, and for commands in tables."""
    for page in PAGES:
        fenced, text = False, page.read_text(encoding="utf-8").replace("\\\n", " \\ \n")
        lines = iter(enumerate(text.splitlines(), 1))
        for number, line in lines:
            fenced ^= line.startswith("```")
            code = line.strip() if fenced or line.startswith("    ") else ""
            while code.endswith("\\"):
                code = code.removesuffix("\\") + next(lines)[1].strip()
            code = re.sub(r"^([A-Z_]+=\S+ )+", "", code)
            spans = re.findall(r"`(cgankd [^`]+)`", line) if line.startswith("|") else []
            for command in [code, *spans]:
                if re.match(r"cgankd [a-z-]", command):
                    yield f"{page.relative_to(ROOT)}:{number}", re.sub(r"\s+#.*| > \S+$| &$", "", command)


COMMANDS = [pytest.param(command, id=f"{place} {command}") for place, command in commands()]


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command's name and its parameters, by typer's own parser; raises as the command itself does."""
    group = typer.main.get_command(main.app)
    context = group.make_context("cgankd", list(words), resilient_parsing=False)
    names = []
    while hasattr(group, "commands"):
        first = context._protected_args if hasattr(context, "_protected_args") else context.protected_args
        name, group, rest = group.resolve_command(context, [*first, *context.args])
        names.append(name)
        context = group.make_context(name, rest, parent=context)
    return " ".join(names), context.params


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_docs_has_real_options_recipes_and_settings(command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] == "--install-completion" or mentioned(words):
        return
    name, params = parsed(words)
    if name == "show":
        next(home for home in homes().values() if params["name"] in home.ready() or PLACEHOLDER.search(params["name"]))
    if name in READS_RECIPES:
        check_recipe(READS_RECIPES[name], params)
    for network in filter(None, (params.get("students") or "").split(",")):
        assert network in zoo.names()
    for row in filter(None, (params.get("methods") or "").split(",")) if name == "table" else ():
        assert row in ("all", "...") or [find(part) for part in parts(row)]
    if name == "methods" and params["name"] not in (None, "NAME"):
        find(params["name"])


def mentioned(words: list[str]) -> bool:
    """Whether these are the name of a command alone, as a text mentions it; then the command must exist."""
    group = typer.main.get_command(main.app)
    for word in words:
        if word not in getattr(group, "commands", {}):
            return False
        group = group.commands[word]
    return True


def check_recipe(command: str, params: dict[str, Any]) -> None:
    """The recipes exist and accept the overrides; a placeholder stands for a recipe of the command with defaults."""
    given = params.get("words") or [params["name"], *(params.get("overrides") or [])]
    if given[0] is None:
        return
    names = [word for word in given if "=" not in word]
    overrides = [word for word in given if "=" in word]
    home = homes()[command]
    for name in names:
        for group in [*(params.get("settings") or []), ""]:
            changes = [*overrides, *shlex.split(group.replace(",", " ") if "[" not in group else group)]
            if PLACEHOLDER.search(name):
                images = not name.endswith(".yaml")  # their settings need no data. before them
                short = [word for word in changes if images and word.partition("=")[0] in DataSettings.model_fields]
                recipe.from_tree({}, [f"data.{word}" if word in short else word for word in changes])
            else:
                home.load(name, changes)


@pytest.mark.parametrize("command", sorted(RUN))
def test_a_cheap_command_of_the_docs_runs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in {str(entry.values[0]) for entry in COMMANDS}, "no page has this command any more"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    examine = doctor.examine
    monkeypatch.setattr(doctor, "examine", lambda: examine(seconds=0.0))
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 2


def test_a_wrong_command_in_the_docs_would_be_seen() -> None:
    check = test_a_command_of_the_docs_has_real_options_recipes_and_settings
    for wrong in (
        "cgankd run fashion student.netwrk=cnn8",
        "cgankd run no-such-recipe",
        "cgankd table fashion --methods xyz",
    ):
        with pytest.raises(UserError):
            check(wrong)
    with pytest.raises(Exception, match=r"No such option.*--no-such-option"):
        check("cgankd run fashion --no-such-option")


def test_the_reference_pages_are_those_of_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What to do where this fails: python tools/write_reference.py."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    code = importlib.import_module("write_reference").main(["--check"])
    out = capsys.readouterr().out
    assert out == "", f"{out.strip()}: run python tools/write_reference.py"
    assert code == 0


def headings(page: Path) -> set[str]:
    """The anchors of the page's headings as GitHub makes them; ``make docs`` checks those of the site."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, *(ROOT / "docs" / "reference").glob("*.md"), ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for name, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
            target = page.parent / name if name else page
            if not re.match(r"https?:", name):
                assert target.exists(), f"{page.relative_to(ROOT)} links to {name}"
                assert not anchor or anchor in headings(target), f"{page.relative_to(ROOT)} links to {name}#{anchor}"
