"""The page's sections with single images: the test images with the largest errors, and images along a scalar label."""

from __future__ import annotations

from cgankd.report import table
from cgankd.report.blocks import Answered, Answers, Block, Note, Section, Slider, SliderStep
from cgankd.report.grids import picture
from cgankd.report.run import Array, Artifact, Run

WORST, ALONG = "worst.safetensors", "along.safetensors"


def worst(run: Run) -> Section | None:
    """The test images with the largest errors of the control and of the best student; None where none are kept."""
    artifact = run.artifact("worst")
    networks = [str(name) for name in artifact.summary.get("networks") or []] if artifact else []
    if artifact is None or not networks:
        return None
    best, control = str((run.results.get("best") or {}).get("row")), str(run.results.get("control"))
    names = {control: "the control", best: "the best student"}
    blocks: list[Block] = []
    for name in networks:
        title = f"Worst of {names.get(name, table.words(name))}"
        title += f" ({table.words(name)})" if name == best != control else ""
        rows = _answered(run, artifact, networks, artifact.tensor(WORST, f"{name}_worst"))
        if rows:
            header = ["true label", *(names.get(other, table.words(other)) for other in networks)]
            blocks.append(Answers(title, header, rows))
    if not blocks:
        return None
    return Section("Worst test images", "worst", [_reading(run, networks, best, control), *blocks])


def _reading(run: Run, networks: list[str], best: str, control: str) -> Note:
    unit = run.task.metric_unit
    answer = f"the predicted value and its error{', in ' + unit if unit else ''}"
    answer = answer if run.task.continuous else "the predicted class and its probability"
    seed = (run.results.get("best") or {}).get("seed")
    alone = {
        control not in networks: " The run has no control to compare with.",
        best == control: " The best student on the validation split is the control itself, so there is one list.",
    }.get(True, "")
    return Note(
        f"The test images with the largest errors, the worst first. An answer is {answer}. The best student is the one "
        f"that was chosen on the validation split and is exported: row {best}"
        + ("" if seed is None else f", seed {seed}; the control has the same seed")
        + f".{alone} Look for wrong labels in the data, for damaged images, and for labels that are often confused."
    )


def _answered(run: Run, artifact: Artifact, networks: list[str], worst: Array | None) -> list[Answered]:
    images, labels = artifact.tensor(WORST, "images"), artifact.tensor(WORST, "labels")
    if worst is None or images is None or labels is None:
        return []
    rows = []
    for place in worst.tolist():
        label = float(labels[place])
        texts = [run.task.short_text(label)]
        texts += [_prediction(run, artifact, name, place, label) for name in networks]
        rows.append(Answered(picture(images[place : place + 1]), texts))
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
