"""From a recipe for text to results.json: every seed and method, and the numbers of the table."""

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
from cgankd.core.paths import RECIPE, RESULTS
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
    """Run every seed and method of the recipe, and write recipe.yaml and results.json to ``out``.

    Finished artifacts there are used again. Raises UserError for what the user can fix, and OutOfTime where
    time.monotonic has passed ``deadline``, at the next checkpoint or before the next stage.
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
        write_text(out / RECIPE, yaml_config.to_yaml(recipe))
        record = collect(LanguageRun(recipe, parts, tokenizer_folder, store))
        if tokenizer_folder is not None:
            record["warnings"] += tokenizer_warnings(tokenizer_folder, parts["test"])
        record["used"] = store.used_names()
        write_json(out / RESULTS, record)
    finally:
        store.close()
    return record


def collect(stages: LanguageRun) -> dict[str, Any]:
    """The contents of results.json: a row per method with its scores over seeds and paired differences to sft."""
    recipe = stages.recipe
    teacher = stages.teacher()
    students = [stages.student(seed) for seed in recipe.seeds]
    distilled = {method: [stages.distilled(method, seed) for seed in recipe.seeds] for method in recipe.distil.methods}
    rows = [_row(method, artifacts) for method, artifacts in distilled.items()]
    control = next((row for row in rows if row["method"] == CONTROL), None)
    if control is not None:
        for row, name in itertools.product([row for row in rows if row is not control], SCORES):
            row[name]["difference"] = paired_difference(row[name]["values"], control[name]["values"])
    results = {
        "cgankd": __version__,
        "name": recipe.name,
        "demonstration": recipe.demonstration,
        "seeds": list(recipe.seeds),
        "text": stages.text.summary,
        "teacher": _model(teacher),
        "student": {
            **_model(students[0]),
            "bits_per_byte": spread([a.summary["bits_per_byte"] for a in students]),
        },
        "rows": rows,
        "seconds": {path.name: seconds for path, seconds in {a.folder: a.seconds for a in stages.store.used}.items()},
    }
    return {**results, "warnings": warnings(results)}


def _row(method: str, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    return {
        "method": method,
        **{name: {**spread([artifact.summary[name] for artifact in artifacts]), "difference": None} for name in SCORES},
        "histories": [artifact.summary["history"] for artifact in artifacts],
        "artifacts": [f"artifacts/{artifact.folder.name}" for artifact in artifacts],
    }


def _model(artifact: Artifact) -> dict[str, Any]:
    return {name: artifact.summary[name] for name in ("parameters", "bits_per_byte", "perplexity")}


def warnings(results: dict[str, Any]) -> list[str]:
    """What a reader should know before trusting the table, one sentence each."""
    sentences = few_seeds(len(results["seeds"]), results["demonstration"])
    teacher = results["teacher"]["bits_per_byte"]
    control = next((row for row in results["rows"] if row["method"] == CONTROL), None)
    if control is not None and teacher >= control["bits_per_byte"]["mean"]:
        sentences.append(
            f"The teacher ({teacher:.3f} bits per byte) is no better than the student fine-tuned on labels alone "
            f"({control['bits_per_byte']['mean']:.3f}): it has nothing to transfer."
        )
    return sentences


def tokenizer_warnings(folder: Path, texts: Sequence[str]) -> list[str]:
    """A sentence where the user's tokenizer changes the test texts, so that bits per byte are not of these."""
    changed = text.changed(text.read_tokenizer(folder), list(texts))
    if not changed:
        return []
    return [
        f"The tokenizer in {folder} changes {changed} of {len(texts)} test documents (lower case, unknown words): bits "
        "per byte are too low, and can't be compared with those of other tokenizers."
    ]
