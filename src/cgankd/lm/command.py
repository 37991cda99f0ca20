"""``cgankd lm``: runs a recipe for text and prints its results."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from cgankd.core.paths import RESULTS, portable
from cgankd.core.watching import Watched
from cgankd.lm.settings import LanguageRecipe


def run(
    recipe: LanguageRecipe, out: Path | None, max_minutes: float | None, console: Console, progress: Watched
) -> None:
    """Run the recipe, print the table and warnings, and write curves.png beside results.json."""
    from cgankd.core.stopping import deadline_in
    from cgankd.lm import run as runs
    from cgankd.lm import show

    folder = out or Path("runs") / portable(f"lm-{recipe.name}")
    results = runs.run(recipe, folder, progress, deadline=deadline_in(max_minutes))
    progress.rest()
    console.print(show.headline(results), soft_wrap=True)
    console.print(show.table(results))
    for warning in results["warnings"]:
        console.print(f"! {warning}")
    show.save_curves(results, folder / "curves.png")
    console.print(f"{folder}: results.json, curves.png", soft_wrap=True)
    progress.finish(results=str(folder / RESULTS))
