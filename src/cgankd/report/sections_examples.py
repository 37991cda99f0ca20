"""The page's sections with single images: the test images with the largest errors, and images along a scalar label."""

from __future__ import annotations

from cgankd.report import table
from cgankd.report.blocks import Answered, Answers, Block, Note, Section, Slider, SliderStep
from cgankd.report.grids import picture
from cgankd.report.run import Array, Artifact, Run

WORST, ALONG = "worst.safetensors", "along.safetensors"
BEST_STUDENT = "the best student"


def worst(run: Run) -> Section | None:
    """The test images with the largest errors of the control and of the best student; None where none are kept."""
    artifact = run.artifact("worst")
    names = shown_networks(run, artifact) if artifact else {}
    if artifact is None or not names:
        return None
    best, control = _best_and_control(run)
    blocks: list[Block] = []
    for name, words in names.items():
        title = f"Worst of {words}"
        title += f" ({table.words(name)})" if name == best != control else ""
        rows = _answered(run, artifact, list(names), artifact.tensor(WORST, f"{name}_worst"))
        if rows:
            blocks.append(Answers(title, ["true label", *names.values()], rows))
    if not blocks:
        return None
    return Section("Worst test images", "worst", [_reading(run, artifact), *blocks])


def _best_and_control(run: Run) -> tuple[str, str]:
    return str((run.results.get("best") or {}).get("row")), str(run.results.get("control"))


def shown_networks(run: Run, artifact: Artifact) -> dict[str, str]:
    """Row -> words, for the networks whose answers to the test images the artifact holds."""
    best, control = _best_and_control(run)
    names = {control: "the control", best: BEST_STUDENT}
    rows = [str(name) for name in artifact.summary.get("networks") or []]
    return {row: names.get(row, table.words(row)) for row in rows}


def which_is_best(run: Run, artifact: Artifact) -> str:
    """Sentences on which student is the best one, and on what it is compared with."""
    best, control = _best_and_control(run)
    seed = (run.results.get("best") or {}).get("seed")
    of_seed = "" if seed is None else f", seed {seed}"
    again = ", trained again on all labels" if (run.results.get("refit") or {}).get("ships") else ""
    if best == control and again:
        compared = ". The answers of the control, which is this row before, are not shown."
    elif best == control:
        compared = ". It is the control itself, so only its answers are shown."
    elif control in shown_networks(run, artifact):
        compared = "; the control has the same seed." if of_seed else "."
    else:
        compared = ". The run has no control to compare with."
    return (
        "The best student is the one that was chosen on the validation split and is exported: "
        f"row {best}{of_seed}{again}{compared}"
    )


def _reading(run: Run, artifact: Artifact) -> Note:
    unit = run.task.metric_unit
    answer = f"the predicted value and its error{', in ' + unit if unit else ''}"
    worst = "the largest errors"
    look = "wrong labels in the data, and for damaged images"
    if not run.task.continuous:
        answer = "the predicted class and its probability; it may be right"
        worst = "the lowest probabilities of the true class"
        look = "wrong labels in the data, for damaged images, and for labels that are often confused"
    return Note(
        f"The test images with {worst}, the worst first. An answer is {answer}. "
        f"{which_is_best(run, artifact)} Look for {look}."
    )


def _answered(run: Run, artifact: Artifact, networks: list[str], worst: Array | None) -> list[Answered]:
    images, labels = artifact.tensor(WORST, "images"), artifact.tensor(WORST, "labels")
    if worst is None or images is None or labels is None:
        return []
    rows, files = [], artifact.summary.get("files") or []
    for place in worst.tolist():
        label = float(labels[place])
        texts = [run.task.short_text(label)]
        texts += [_prediction(run, artifact, name, place, label) for name in networks]
        rows.append(Answered(picture(images[place : place + 1]), texts, files[place] if place < len(files) else ""))
    return rows


def _prediction(run: Run, artifact: Artifact, name: str, place: int, label: float) -> str:
    prediction, probability = (
        artifact.tensor(WORST, f"{name}_{what}", [place]) for what in ("predictions", "probabilities")
    )
    if prediction is None or probability is None:
        return "–"
    return run.task.prediction_text(float(prediction[0]), label, float(probability[0]))


def along(run: Run) -> list[Block]:
    """Generated images at labels along the range of a scalar, with a slider; [] where there are none."""
    artifact = run.artifact("along")
    labels = artifact.tensor(ALONG, "labels") if artifact else None
    images = artifact.tensor(ALONG, "images") if artifact else None
    if artifact is None or labels is None or images is None or not len(labels):
        return []
    unit = f" {run.task.metric_unit}" if run.task.metric_unit else ""
    steps = [
        SliderStep(run.task.short_text(float(label)), picture(row)) for label, row in zip(labels, images, strict=True)
    ]
    same = (
        "Each column has one latent vector, so from label to label only what depends on the label should change."
        if artifact.summary.get("one_latent")
        else "The generator draws other images for each label, so more than what depends on the label changes."
    )
    return [Slider("Generated images along the label", "requested label", unit, steps, same)]
