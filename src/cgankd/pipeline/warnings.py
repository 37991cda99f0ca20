"""Warnings: what a reader should know before trusting the table of results.json, one sentence each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cgankd import distill
from cgankd.core.errors import first_of
from cgankd.core.numbers import as_part, counted
from cgankd.core.run_text import rounded
from cgankd.metrics.statistics import balanced_accuracy as of_classes
from cgankd.metrics.statistics import few_seeds, standard_error
from cgankd.pipeline.comparisons import CONTROL, row
from cgankd.report.shipped import shipped

USEFUL = 0.1  # of the constant answer's score, by which a useful student is better
ENOUGH_TEST_IMAGES = 200  # two standard errors of an accuracy are 7 points at most
FEWEST_OF_A_CLASS = 3  # test images, below which nothing is said of a class
RARE = 5  # test images of a class, below which its accuracy is hardly known
FAILS = 0.5  # of the accuracy, below which a class fails
NAMED = 3  # classes in one sentence
SMALL_SHARE = 0.1  # of the loss; below this the labels have little influence

Scored = Callable[[float], str]


def warnings(results: Mapping[str, Any]) -> list[str]:
    """All warnings for these results."""
    better = 1.0 if results["higher_is_better"] else -1.0

    def scored(value: float) -> str:
        return f"{rounded(value)} {results['unit']}".rstrip()

    return [
        *few_seeds(len(results["seeds"]), results["demonstration"]),
        *results.get("second_tries", []),
        *_constant_teacher(results, better, scored),
        *_weak_teacher(results, better, scored),
        *label_loss_share_too_small(results["rows"], better, scored),
        *_pseudo_labels(results),
        *_search(results, scored),
        *_stuck_generator(results),
        *_subsampling(results),
        *_missing_images(results),
        *_no_better_than_constant(results, better, scored),
        *_failing_classes(results, scored),
        *_rare_classes(results),
        *_few_test_images(results),
    ]


def _constant_teacher(results: Mapping[str, Any], better: float, scored: Scored) -> Iterator[str]:
    """A teacher beside an answer that needs no image."""
    values, constant = results["teacher"]["values"], results.get("constant")
    if not values or not constant:
        return
    teacher, same = statistics.fmean(values), results["teacher"].get("same_answer")
    if better * (teacher - constant["test"]) < USEFUL * abs(constant["test"]):
        elsewhere = results["teacher"].get("trained_on") == "elsewhere"
        advice = "" if elsewhere else " Another teacher.fit.learning_rate or more teacher.fit.steps may help."
        no_better = "no" if better * (teacher - constant["test"]) <= 0 else "hardly"
        why = "" if same is None else f", because it answers {same} for nearly all test images"
        yield (
            f"The teacher ({scored(teacher)} on the test split) is {no_better} better than always answering "
            f"{constant['label']} ({scored(constant['test'])}){why}: students and generated images learn little or "
            f"nothing from it.{advice}"
        )


def _weak_teacher(results: Mapping[str, Any], better: float, scored: Scored) -> Iterator[str]:
    control = next((entry for entry in results["rows"] if entry["method"] == CONTROL), None)
    values = results["teacher"]["values"]  # empty for a teacher without outputs for test images
    teacher = statistics.fmean(values) if values else math.nan
    if control is None or not better * (teacher - control["mean"]) <= 0:
        return
    attacked = [entry.get("robustness", {}) for entry in (results["teacher"], control)]
    attacks = (attacked[0].keys() & attacked[1].keys()) - {"clean"}
    more_robust = any(better * (attacked[0][name]["mean"] - attacked[1][name]["mean"]) > 0 for name in attacks)
    but = " except its robustness to attacks" if more_robust else ""
    yield (
        f"The teacher ({scored(teacher)}) is no better than the student trained on labels alone for as many steps as "
        f"the other rows ({scored(control['mean'])}): it may have nothing to transfer{but}."
    )


def label_loss_share_too_small(rows: Sequence[Mapping[str, Any]], better: float, scored: Scored) -> list[str]:
    """Advice for rows with a small share of label loss that are worse than labels alone, on the validation split."""
    plain = {row(entry["method"]).fakes: entry for entry in rows if entry["method"] in (CONTROL, "cgan")}
    advice = []
    for entry in rows:
        compared = row(entry["method"])
        weights = [part for part in distill.parts(compared.method) if "weight" in distill.find(part).defaults]
        share, labels_alone = entry.get("label_share"), plain.get(compared.fakes)
        if not weights or share is None or share >= SMALL_SHARE or labels_alone is None:
            continue
        score, reference = entry["val"]["mean"], labels_alone["val"]["mean"]
        if better * (score - reference) < 0:
            settings = ", ".join(f"student.method_settings.{part}.weight" for part in weights)
            advice.append(
                f"On the validation split row {entry['method']} ({scored(score)}) is worse than row "
                f"{labels_alone['method']} ({scored(reference)}). At the end only {share:.1%} of its loss came from "
                f"the labels. A smaller "
                f"{settings} may help."
            )
    return advice


def _pseudo_labels(results: Mapping[str, Any]) -> Iterator[str]:
    if results["teacher"].get("trained_on") != "pool" or results.get("unlabelled_from") == "elsewhere":
        return
    if rows := [entry["method"] for entry in results["rows"] if entry.get("pseudo_labelled")]:
        yield (
            f"The teacher was trained on the images that it labels for {', '.join(rows)}, with their true labels. So "
            "this is an upper bound: its labels are nearly the true ones."
        )


def _search(results: Mapping[str, Any], scored: Scored) -> Iterator[str]:
    choice = results.get("search")
    if choice and not choice["helps"]:
        yield (
            f"On the validation split no setting of the search ({scored(choice['score'])} at best) is better than the "
            f"student without generated images ({scored(choice['control'])}): generated images do not help here."
        )


def _stuck_generator(results: Mapping[str, Any]) -> Iterator[str]:
    varieties = [variety for variety in results.get("generator", {}).get("variety") or [] if variety]
    stuck = list(dict.fromkeys(label for variety in varieties for label in variety["alike"]))
    if stuck:
        checked = len({label for variety in varieties for label in variety["labels"]})
        which = "all" if len(stuck) == checked else f"{len(stuck)} of {checked}"
        yield (
            f"The generator draws the same few images again and again for {which} labels that were looked at "
            f"({first_of(stuck, 5)}): they differ far less than real images of these labels. A lower "
            "generator.generator_rate, more generator.steps, or generator.mode_seeking above 0 may help."
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
            "The density ratio fails its held-out checks, but images were subsampled with it nevertheless: "
            + " ".join(ratio["reasons"])
        )
    if synthesis and (dead := synthesis.get("not_subsampled")):
        yield (
            f"For {first_of(dead, 5)} all generated images were accepted, because the density ratio of every burn-in "
            "fake there is 0. More ratio.steps may help."
        )


def _missing_images(results: Mapping[str, Any]) -> Iterator[str]:
    synthesis = results.get("synthesis")
    if not synthesis or synthesis["kept"] >= synthesis["requested"]:
        return
    ready = results.get("generator", {}).get("ready_images")  # their number; in older results whether there are any
    why = "generator.source has no more images of some labels, or " if ready else ""
    looked_at = synthesis.get("generated", math.inf)
    unused = (
        f" Each label has its share of synthesis.images, which is taken from its own images alone, so only "
        f"{looked_at:,} of the {ready:,} ready images were looked at. A larger synthesis.images looks at more."
        if ready and ready > looked_at
        else ""
    )
    yield (
        f"{synthesis['requested'] - synthesis['kept']} of {synthesis['requested']} images are missing: {why}"
        f"some labels reached synthesis.max_draws draws per image.{unused}"
    )
    if not synthesis["kept"]:
        yield "No generated image was kept at all: rows with generated images were trained on real images alone."
    if ready:
        return
    empty = [entry for entry in synthesis.get("per_label", []) if entry["requested"] and not entry["kept"]]
    rejected = [entry["label"] for entry in empty if entry.get("accepted") == 0]
    dropped = [entry["label"] for entry in empty if entry["label"] not in rejected]
    if rejected:
        yield (
            f"No generated image was accepted for {first_of(rejected, 5)}, because their density ratios are near 0 "
            "beside the largest one. synthesis.subsampling=quantile, =budget or =none may help."
        )
    if dropped:
        yield (
            f"No generated image was kept for {first_of(dropped, 5)}: the generator does not follow these labels, so "
            "generated images can make the student worse there. More generator.steps may help."
        )


def _no_better_than_constant(results: Mapping[str, Any], better: float, scored: Scored) -> Iterator[str]:
    """The student that ships, beside an answer that needs no image."""
    best, constant = results.get("best"), results.get("constant")
    if not best or not constant:
        return
    images = (results.get("counts") or {}).get("test")
    margin = USEFUL * abs(constant["test"])
    if images and results.get("metric") == "accuracy":
        share = best["test"] / 100
        margin = 200 * math.sqrt(share * (1 - share) / images)  # two standard errors, in points
    if better * (best["test"] - constant["test"]) < margin:
        measured = f"{images:,} test images" if images else "the test split"
        elsewhere = results["teacher"].get("trained_on") == "elsewhere"
        start = "" if elsewhere else "a teacher that starts from pretrained weights (teacher.start), "
        yield (
            f"The student that ships ({scored(best['test'])} on {measured}) is not clearly better than always "
            f"answering {constant['label']} ({scored(constant['test'])}). What may help: more labelled images, {start}"
            "and mirrored views where a mirror image has the same label (student.fit.augment.flip=true)."
        )


def balanced_accuracy(results: Mapping[str, Any]) -> float | None:
    """Of the student that ships; None for scalars, and where all classes have about as many test images."""
    classes = _tested_classes(results)
    return of_classes([accuracy for _, accuracy, _ in classes], [images for _, _, images in classes])


def _tested_classes(results: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """Of each class with test images: name, accuracy of the student that ships, number of images; [] for scalars."""
    best, images = results.get("best"), results.get("test_images_per_bin")
    if not best or not images or results.get("metric") != "accuracy":
        return []
    entry = shipped(results)
    known = zip(results["bins"], entry["per_bin"], images, strict=True) if entry else []
    return [(name, accuracy, count) for name, accuracy, count in known if accuracy is not None]


def _failing_classes(results: Mapping[str, Any], scored: Scored) -> Iterator[str]:
    """Classes that the accuracy hides, because they have few of the test images."""
    tested = [entry for entry in _tested_classes(results) if entry[2] >= FEWEST_OF_A_CLASS]
    accuracy = results["best"]["test"] if tested else 0.0
    failing = sorted((entry for entry in tested if entry[1] < FAILS * accuracy), key=lambda entry: entry[1])
    if not failing:
        return
    named = [
        f"{name} is right in {rounded(right * images / 100, 2)} of {images:,} test images"
        for name, right, images in failing[:NAMED]
    ]
    further = len(failing) - len(named)
    if further:
        named.append(f"{counted(further, 'more class is', 'more classes are')} right less than half as often")
    entry = shipped(results)
    mean = " (means over seeds)" if entry and len(entry["values"]) > 1 else ""
    yield (
        f"The accuracy of the student that ships ({scored(accuracy)}) hides classes that fail{mean}: "
        f"{'; '.join(named)}. More images of {'this class' if len(failing) == 1 else 'these classes'} help most "
        "(docs/few-labels.md, uneven classes)."
    )


def _rare_classes(results: Mapping[str, Any]) -> Iterator[str]:
    """Classes whose score says nothing, whatever it is."""
    rare = [f"{name} ({images})" for name, _, images in _tested_classes(results) if images < RARE]
    if rare:
        classes = "this class" if len(rare) == 1 else "these classes"
        balanced = ", and so the balanced accuracy," if "balanced" in results["best"] else ""
        yield f"Few test images of {first_of(rare, NAMED)}: the accuracy of {classes}{balanced} is hardly known."


def _few_test_images(results: Mapping[str, Any]) -> Iterator[str]:
    """A test split on which most differences are chance."""
    images = (results.get("counts") or {}).get("test")
    if not images or images >= ENOUGH_TEST_IMAGES:
        return
    only = f"The test split has only {counted(images, 'image', 'images')}"
    if results.get("metric") != "accuracy":
        part = as_part(2 * standard_error("mae", 1.0, images))
        yield f"{only}, so a difference below about {part} of the error may be chance."
        return
    error = standard_error("accuracy", results["best"]["test"] if results.get("best") else 50.0, images)
    size = f"{100 / images:.2g}"
    size += " point" if size == "1" else " points"
    yield (
        f"{only}: one image is {size} of accuracy, and a difference below about {2 * error:.0f} points (two standard "
        "errors) may be chance."
    )
