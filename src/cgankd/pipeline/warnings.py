"""What a reader of results.json should know before believing the table, one sentence each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cgankd import distill
from cgankd.metrics.statistics import few_seeds
from cgankd.pipeline.comparisons import CONTROL, row

SMALL_SHARE = 0.1  # of the loss, under which the label counts for little

Scored = Callable[[float], str]


def warnings(results: Mapping[str, Any]) -> list[str]:
    """All that hold for these results."""
    better = 1.0 if results["higher_is_better"] else -1.0

    def scored(value: float) -> str:
        return f"{value:.4g} {results['unit']}".rstrip()

    return [
        *_few_runs(results),
        *_weak_teacher(results, better, scored),
        *label_loss_share_too_small(results["rows"], better, scored),
        *_pseudo_labels(results),
        *_search(results, scored),
        *_subsampling(results),
        *_missing_images(results),
    ]


def _few_runs(results: Mapping[str, Any]) -> list[str]:
    if results["demonstration"]:
        return ["This is a demonstration: its trainings are too short to prove anything."]
    return few_seeds(len(results["seeds"]))


def _weak_teacher(results: Mapping[str, Any], better: float, scored: Scored) -> Iterator[str]:
    control = next((entry for entry in results["rows"] if entry["method"] == CONTROL), None)
    values = results["teacher"]["values"]  # none of a teacher that has not answered about test images
    teacher = statistics.fmean(values) if values else math.nan
    if control is None or not better * (teacher - control["mean"]) <= 0:
        return
    attacked = [entry.get("robustness", {}) for entry in (results["teacher"], control)]
    attacks = (attacked[0].keys() & attacked[1].keys()) - {"clean"}
    sturdier = any(better * (attacked[0][name]["mean"] - attacked[1][name]["mean"]) > 0 for name in attacks)
    but = " except its robustness to attacks" if sturdier else ""
    yield (
        f"The teacher ({scored(teacher)}) is no better than the student trained alone for as many steps "
        f"({scored(control['mean'])}): it has nothing to transfer{but}."
    )


def label_loss_share_too_small(rows: Sequence[Mapping[str, Any]], better: float, scored: Scored) -> list[str]:
    """Advice for rows whose method leaves little of the label's loss and that labels alone outdo, by validation."""
    plain = {row(entry["method"]).fakes: entry for entry in rows if entry["method"] in (CONTROL, "cgan")}
    advice = []
    for entry in rows:
        compared = row(entry["method"])
        weights = [part for part in distill.parts(compared.method) if "weight" in distill.find(part).defaults]
        share, alone = entry.get("label_share"), plain.get(compared.fakes)
        if not weights or share is None or share >= SMALL_SHARE or alone is None:
            continue
        own, other = entry["val"]["mean"], alone["val"]["mean"]
        if better * (own - other) < 0:
            settings = ", ".join(f"student.method_settings.{part}.weight" for part in weights)
            advice.append(
                f"On the validation split row {entry['method']} ({scored(own)}) is worse than {alone['method']} "
                f"({scored(other)}). At the end only {share:.1%} of its loss came from the labels. A smaller "
                f"{settings} may help."
            )
    return advice


def _pseudo_labels(results: Mapping[str, Any]) -> Iterator[str]:
    if results["teacher"].get("trained_on") == "pool" and any(r.get("pseudo_labelled") for r in results["rows"]):
        yield (
            "The teacher was trained on the very images that it labels for row pseudo, with their true labels. So the "
            "row is an upper reference: its labels are nearly the true ones."
        )


def _search(results: Mapping[str, Any], scored: Scored) -> Iterator[str]:
    choice = results.get("search")
    if choice and not choice["helps"]:
        yield (
            f"On the validation split nothing in the search ({scored(choice['score'])} at best) beats the student "
            f"without generated images ({scored(choice['control'])}): they would hurt here."
        )


def _subsampling(results: Mapping[str, Any]) -> Iterator[str]:
    synthesis, ratio = results.get("synthesis"), results.get("ratio")
    if synthesis and synthesis.get("fell_back"):
        yield (
            "Images were not subsampled, because the density ratio fails its held-out checks: "
            + " ".join(synthesis["fell_back"])
        )
    elif ratio and ratio.get("reasons"):
        yield (
            "The density ratio fails its held-out checks, and images were subsampled by it all the same: "
            + " ".join(ratio["reasons"])
        )


def _missing_images(results: Mapping[str, Any]) -> Iterator[str]:
    synthesis = results.get("synthesis")
    if not synthesis or synthesis["kept"] >= synthesis["requested"]:
        return
    ready = results.get("generator", {}).get("ready_images")
    why = "generator.source has no more of their labels, or " if ready else ""
    yield (
        f"{synthesis['requested'] - synthesis['kept']} of {synthesis['requested']} images are missing: {why}"
        f"{'they' if ready else 'their labels'} reached synthesis.max_draws draws per image."
    )
