"""A finished run that is started again, and depends on nothing that has changed: it says again what it said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cgankd.cli import ship
from cgankd.core import unchanged
from cgankd.core.errors import UserError
from cgankd.core.run_folder import read_results

if TYPE_CHECKING:  # packages that commands import late
    from cgankd.config.recipe import Recipe
    from cgankd.core.watching import Watched
    from cgankd.shipping.export import Exported


class Again:
    """What is known of the run of ``recipe`` in ``folder`` before it is started. options: of its command.

    possible: False where the command does more than to run the recipe and to show its results.
    """

    def __init__(self, recipe: Recipe, folder: Path, progress: Watched, possible: bool, **options: bool) -> None:
        self.folder, self.progress, self.options = folder, progress, options
        self.settings: dict[str, Any] = recipe.model_dump(mode="json")
        self.before = unchanged.before_run(folder, self.settings, options) if possible else None

    def is_said(self, show: Callable[[dict[str, Any]], None]) -> bool:
        """Whether everything was as it was when the run had ended; then its results are shown, by ``show``."""
        said = unchanged.said_before(self.folder, self.before)
        if said is None:
            return False
        try:
            results = read_results(self.folder, ("rows", "warnings", "teacher", "control"))
        except UserError:
            return False
        finished = f"{self.folder} is finished, and nothing that it depends on has changed"
        for note in (*said["notes"], finished):
            self.progress.say(note)
        self.progress.rest()
        show(results)
        if page := said["page"]:
            ship.show_page(Path(page))
        if exported := said["exported"]:
            ship.show_export(SimpleNamespace(**exported, score=None, int8=None))
        return True

    def keep(self, exported: Exported | None, page: Path | None) -> None:
        """Note what a run that has just finished depends on, unless something of it has changed meanwhile."""
        now = None if self.before is None else unchanged.before_run(self.folder, self.settings, self.options)
        facts = None
        if exported is not None:
            names = ("facts", "note", "compared", "difference")
            facts = {"path": str(exported.path), **{name: getattr(exported, name) for name in names}}
        said = {"notes": self.progress.first_notes, "exported": facts, "page": None if page is None else str(page)}
        unchanged.keep(self.folder, now if now == self.before else None, said)
