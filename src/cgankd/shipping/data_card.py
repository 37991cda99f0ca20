"""The data card of exported images: README.md as Hugging Face reads it, with a YAML header and plain text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cgankd._version import __version__
from cgankd.config.recipe import Recipe
from cgankd.core import run_text
from cgankd.core.numbers import counted
from cgankd.core.store import Artifact
from cgankd.metrics.memorisation import FEWEST
from cgankd.pipeline.comparisons import row as row_of
from cgankd.report.markdown import literal
from cgankd.shipping.finished import FinishedRun
from cgankd.shipping.image_columns import LeavingImages
from cgankd.shipping.image_formats import H5_NAME
from cgankd.shipping.near_copies import NearCopies
from cgankd.tasks import Task

CARD, PAIRS = "README.md", "nearest.png"
SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
FILES = {"parquet": "data/*.parquet", "webdataset": "data/*.tar"}  # layouts whose files a hub does not find by itself
READ = {
    "imagefolder": 'datasets.load_dataset("imagefolder", data_dir="{name}", split="train")',
    "parquet": 'datasets.load_dataset("parquet", data_files="{name}/data/*.parquet", split="train")',
    "webdataset": 'datasets.load_dataset("webdataset", data_files="{name}/data/*.tar", split="train")',
    "hdf5": 'h5py.File("{name}/images.h5")["images"][:64]  # uint8 [64, H, W, C]',
}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where exported images come from. to: their layout. name: of their folder."""

    run: FinishedRun
    recipe: Recipe
    row: str
    synthesis: Artifact
    to: str
    name: str

    @property
    def replace(self) -> str:
        """How labels were replaced: none, hard or soft."""
        ablation = row_of(self.row).ablation
        return ablation.replace if ablation else str(self.run.results["synthesis"]["replace"])


def data_card(origin: Origin, images: LeavingImages, near: NearCopies | None, note: str) -> str:
    """The text of README.md. note: why ``near`` is None."""
    return "\n\n".join(
        [
            _header(origin, images),
            f"# {_title(origin)}",
            _summary(images),
            _reading(origin, images),
            _making(origin),
            _counts(origin.synthesis.summary, images),
            _copies(near, note),
            _licence(origin),
        ]
    ) + "\n"  # fmt: skip


def _title(origin: Origin) -> str:
    return f"Generated images after {_text(origin.run.results['dataset'])}"


def _text(value: Any) -> str:
    """A user's word as it is, so that it can't break the card."""
    return literal(str(value))


def _header(origin: Origin, images: LeavingImages) -> str:
    facts: dict[str, Any] = {
        "pretty_name": _title(origin),
        "license": "other",
        "license_name": "licence-of-the-training-images",
        "task_categories": ["other" if images.task.continuous else "image-classification"],
        "size_categories": [next((words for size, words in SIZES if len(images) < size), "10M<n<100M")],
        "tags": ["synthetic", "knowledge-distillation", "conditional-gan", "cgankd"],
    }
    if origin.to in FILES:
        files = [{"split": "train", "path": FILES[origin.to]}]
        facts["configs"] = [{"config_name": "default", "data_files": files}]
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def _summary(images: LeavingImages) -> str:
    height, width = images.images.size
    colour = "colour" if images.images.channels == 3 else "grey"
    what = _text(images.task.answer_words)
    return (
        f"{len(images):,} {colour} images of {width}x{height} pixels, each with {what}. **No image is a photograph**: "
        "a conditional GAN drew them, and a teacher network checked them, so that another network can learn from them "
        "(cGAN-KD, Ding et al., arXiv 2104.03164)."
    )


def _reading(origin: Origin, images: LeavingImages) -> str:
    task, hdf5 = images.task, origin.to == "hdf5"
    lines = ["## Columns", "| column | what it is |\n| --- | --- |"]
    for name, column in images.columns.items():
        stored = "labels" if name == "label" and hdf5 else name
        lines[-1] += f"\n| `{stored}` | {_text(column.meaning)} |"
    if task.continuous:
        low, high = (task.short_text(task.to_json()[end]) for end in ("low", "high"))
        lines.append(f"Labels lie between {low} and {high} {_text(task.metric_unit)}".rstrip() + ".")
    read, again = READ[origin.to].format(name=origin.name), f"{origin.name}/{H5_NAME}" if hdf5 else origin.name
    code = f"```python\n{read}\n```\n\n```\ncgankd data {again} task={task.name}\n```"
    return "\n\n".join([*lines, "## How do I read them?", code])


def _making(origin: Origin) -> str:
    run, summary, recipe = origin.run, origin.synthesis.summary, origin.recipe
    settings = recipe.generator
    if settings.source is None:
        generator = f"{settings.gan.network.kind}, trained here for {settings.gan.steps:,} steps"
    else:
        generator = f"{Path(settings.source).name}, not trained here"
    teacher = run.results["teacher"]
    rows = {
        "recipe": recipe.name,
        "row of the table": origin.row,
        "training images": f"{_training(run):,} of {run.results['dataset']}",
        "generator": generator,
        "teacher": f"{teacher['network']}; {_scored(run, teacher.get('test'))} on test images",
        "seeds": f"of the run {', '.join(map(str, run.results['seeds']))}; of these images {run.results['seeds'][0]}",
        "generated": f"{summary['generated']:,}",
        **_shares(summary),
        "cut-off of the filter": _cut_off(summary, run.task),
        "labels": {
            "none": "those given to the generator",
            "hard": "replaced by the teacher's predictions",
            "soft": "those given to the generator; students learnt from the teacher's probabilities",
        }[origin.replace],
        "made by": f"cgankd {__version__}; run with {run.results['cgankd']}",
    }
    table = "| | |\n| --- | --- |\n" + "\n".join(f"| {name} | {_text(value)} |" for name, value in rows.items())
    notes = [_text(reason) for reason in run.results["synthesis"].get("fell_back", [])]
    if "search" in run.results:
        notes.append("The search chose filter and number of images on the validation split, not as set below.")
    return "\n\n".join(["## How were they made?", table, *notes, _settings(origin)])


def _settings(origin: Origin) -> str:
    """The settings of generator, density ratio and synthesis. Folders of the owner's machine are left out."""
    recipe, ablation = origin.recipe, row_of(origin.row).ablation
    if ablation:
        recipe = recipe.model_copy(update={"synthesis": ablation.applied(recipe.synthesis)})
    tree = recipe.model_dump(mode="json", include={"generator", "ratio", "synthesis"})
    if tree["generator"]["source"] is not None:
        tree["generator"]["source"] = Path(tree["generator"]["source"]).name
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return f"<details><summary>All settings of these steps</summary>\n\n```yaml\n{text}```\n\n</details>"


def _training(run: FinishedRun) -> int:
    return int(run.data_summary["counts"]["train"])


def _scored(run: FinishedRun, value: float | None) -> str:
    name = run_text.metric_name(run.results["metric"])
    return "not scored" if value is None else f"{name} {run_text.rounded(value)} {run.results['unit']}".rstrip()


def _shares(summary: Mapping[str, Any]) -> dict[str, str]:
    """How many images each step left. Each share says of which images it is one."""
    generated, accepted, kept = (int(summary[name]) for name in ("generated", "accepted", "kept"))
    subsampled, filtered = summary["subsampling"] != "none", summary["filter_quantile"] is not None
    before = "accepted" if subsampled else "generated"
    return {
        "accepted by the density ratio": _share(accepted, generated, "generated") if subsampled else "not subsampled",
        "kept by the teacher's filter": _share(kept, accepted, before) if filtered else "not filtered",
        "kept in all": _share(kept, generated, "generated"),
    }


def _share(part: int, whole: int, of: str) -> str:
    return f"{part:,} of {whole:,} {of} ({part / max(1, whole):.1%})"


def _cut_off(summary: Mapping[str, Any], task: Task) -> str:
    quantile = summary["filter_quantile"]
    if quantile is None:
        return "no filter"
    finite = [value for value in summary["thresholds"] if value is not None]
    if not finite:
        return f"the {quantile:g}-quantile of the teacher's error"
    ends = (
        f"{min(finite):.4g}"
        if len(finite) == 1
        else f"{min(finite):.4g} to {max(finite):.4g}, one for each {task.label_noun}"
    )
    return f"the {quantile:g}-quantile of the teacher's error ({task.error_words}): {ends}"


def _counts(summary: Mapping[str, Any], images: LeavingImages) -> str:
    names, place = images.task.bins(images.images.labels)
    counts = place.bincount(minlength=len(names)).tolist()
    lines = [f"| {_text(name)} | {count:,} |" for name, count in zip(names, counts, strict=True)]
    missing = summary["requested"] - summary["kept"]
    requested = counted(summary["requested"], "requested image", "requested images")
    short = (
        f"\n\n{missing:,} of {requested} {'is' if missing == 1 else 'are'} missing, because too few proposals with "
        f"{'its label' if missing == 1 else 'their labels'} passed."
    )
    return "## Images per label\n\n| label | images |\n| --- | --- |\n" + "\n".join(lines) + short * (missing > 0)


def _copies(near: NearCopies | None, note: str) -> str:
    title = "## Are they copies of training images?\n\n"
    if near is None:
        return f"{title}Not measured: {_text(note)}."
    text = (
        f"{near.compared:,} of the generated images were compared, pixel by pixel, with all {near.train:,} training "
        f"images. The median distance to the nearest one is {near.median:.1f} grey levels (root mean square, of 255). "
    )
    if near.near is None or near.cutoff is None or near.expected is None:
        why = "repeat training images" if near.held_out >= FEWEST else "are too few to say which distance is small"
        text += f"Near copies were not counted, because the {near.held_out:,} validation images {why}."
    else:
        text += (
            f"**Near copies: {near.near:,} ({near.near / near.compared:.1%})** are nearer than {near.cutoff:.1f}, as "
            f"are the nearest 1 % (or the nearest) of {near.held_out:,} real validation images. For images as new as "
            f"those, {near.expected:.1%} are expected."
        )
    return (
        f"{title}{text}\n\n![Generated images and their nearest training images]({PAIRS})\n\n"
        f"The {len(near.pairs)} nearest pairs: generated image left, training image right, and their distance. This "
        "picture shows training images: delete it where these must not be passed on. Distances between pixels do not "
        "see every copy, for instance one that is shifted."
    )


def _licence(origin: Origin) -> str:
    return (
        "## Licence\n\n"
        f"The images were generated from the images of {_text(origin.run.results['dataset'])}, so the licence and the "
        "terms of their owner apply. cgankd and its authors claim no rights in the images. Replace this paragraph, and "
        "`license` above, by the licence that the owner has chosen."
    )
