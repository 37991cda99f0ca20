"""From a recipe to results.json: the road of text for every seed and method, and the table's numbers."""

from __future__ import annotations

import importlib.metadata
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgankd._version import __version__
from cgankd.config import yaml_config
from cgankd.core.files import write_json, write_text
from cgankd.core.progress import SILENT, Progress
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Artifact, Store
from cgankd.lm import models, text
from cgankd.lm.settings import LanguageRecipe
from cgankd.lm.stages import LanguageRun
from cgankd.metrics.statistics import few_seeds, paired_difference, spread

CONTROL = "sft"
SCORES = ("bits_per_byte", "perplexity", "kl", "acceptance")


def run(
    recipe: LanguageRecipe, out: Path, progress: Progress = SILENT, *, deadline: float = math.inf
) -> dict[str, Any]:
    """Go the road for every seed and method of the recipe and write recipe.yaml and results.json to ``out``.

    What is finished there already is used again. Raises UserError for what the user can mend, and OutOfTime where
    time.monotonic has passed ``deadline``: at the next checkpoint of a loop, or before the next station.
    """
    models.transformers()
    tokenizer_folder = models.check(recipe)
    parts = text.split(text.documents(recipe.text.source), recipe.text)
    fabric = make_fabric(recipe.runtime.device, recipe.runtime.precision, recipe.runtime.threads)
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "tokenizers")}
    store = Store(
        out,
        fabric,
        progress,
        command="lm",
        deadline=deadline,
        checkpoint_seconds=recipe.runtime.checkpoint_seconds,
        further=versions,
    )
    try:
        write_text(out / "recipe.yaml", yaml_config.to_yaml(recipe))
        record = collect(LanguageRun(recipe, parts, tokenizer_folder, store))
        record["used"] = store.used_names()
        write_json(out / "results.json", record)
    finally:
        store.close()
    return record


def collect(road: LanguageRun) -> dict[str, Any]:
    """Everything of results.json: a row per method, its scores seed by seed, and paired differences to sft."""
    recipe = road.recipe
    teacher = road.teacher()
    students = [road.student(seed) for seed in recipe.seeds]
    methods = recipe.distil.methods
    made = {method: [road.distilled(method, seed) for seed in recipe.seeds] for method in methods}
    rows = [_row(method, artifacts) for method, artifacts in made.items()]
    control = next((row for row in rows if row["method"] == CONTROL), None)
    if control is not None:
        for row, name in itertools.product([row for row in rows if row is not control], SCORES):
            row[name]["difference"] = paired_difference(row[name]["values"], control[name]["values"])
    found = {
        "cgankd": __version__,
        "name": recipe.name,
        "demonstration": recipe.demonstration,
        "seeds": list(recipe.seeds),
        "text": road.text.summary,
        "teacher": _model(teacher),
        "student": {
            **_model(students[0]),
            "bits_per_byte": spread([a.summary["bits_per_byte"] for a in students]),
        },
        "rows": rows,
        "seconds": {path.name: seconds for path, seconds in {a.folder: a.seconds for a in road.store.used}.items()},
    }
    return {**found, "warnings": warnings(found)}


def _row(method: str, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    return {
        "method": method,
        **{name: {**spread([artifact.summary[name] for artifact in artifacts]), "difference": None} for name in SCORES},
        "histories": [artifact.summary["history"] for artifact in artifacts],
        "artifacts": [f"artifacts/{artifact.folder.name}" for artifact in artifacts],
    }


def _model(artifact: Artifact) -> dict[str, Any]:
    return {name: artifact.summary[name] for name in ("parameters", "bits_per_byte", "perplexity")}


def warnings(found: dict[str, Any]) -> list[str]:
    """Sentences about what a reader should know before believing the table."""
    said = []
    if found["demonstration"]:
        said.append("This is a demonstration: its trainings are too short to prove anything.")
    else:
        said += few_seeds(len(found["seeds"]))
    teacher = found["teacher"]["bits_per_byte"]
    control = next((row for row in found["rows"] if row["method"] == CONTROL), None)
    if control is not None and teacher >= control["bits_per_byte"]["mean"]:
        said.append(
            f"The teacher ({teacher:.3f} bits per byte) reads no better than the student fine-tuned alone "
            f"({control['bits_per_byte']['mean']:.3f}): it has nothing to transfer."
        )
    return said
