"""What a teacher that only answers can't serve: refused before anything is trained, or done by another network."""

from __future__ import annotations

from pathlib import Path

from cgankd import distill
from cgankd.config.recipe import Recipe
from cgankd.core.errors import UserError
from cgankd.core.files import read_json
from cgankd.data.imageset import Splits
from cgankd.gan.adapters import StoredImages
from cgankd.gan.generator import Sampler
from cgankd.pipeline.comparisons import row
from cgankd.teachers.answers import StoredAnswers
from cgankd.teachers.black_box import SETTING, BlackBox
from cgankd.teachers.opening import answers_files

EXPORT = "export.json"  # beside exported images: the key of the labelled images that their generator learnt from


def with_features(recipe: Recipe) -> Recipe:
    """The recipe with the NOKD student's features wherever it asks for those of a teacher that shows none."""
    ratio, metrics = recipe.ratio, recipe.metrics
    if ratio.features == "teacher":
        ratio = ratio.model_copy(update={"features": "nokd"})
    if "teacher" in metrics.features:
        metrics = metrics.model_copy(update={"features": ("nokd",)})
    return recipe.model_copy(update={"ratio": ratio, "metrics": metrics})


def settled(recipe: Recipe) -> Recipe:
    """The recipe as its teacher can serve it; UserError where it can't."""
    teacher = recipe.teacher
    if teacher.votes != "first" and not teacher.jury:
        raise UserError(f"teacher.votes = {teacher.votes} needs teacher.jury, which is empty; allowed: first")
    for name, one in teacher.all():
        ways = [way for way in ("source", "weights", "start") if getattr(one, way) is not None]
        if len(ways) > 1:
            raise UserError(f"{name}.{ways[0]} and {name}.{ways[1]} are both set; allowed: one of them")
        if one is not teacher and answers_files(one.source):
            raise UserError(
                f"{name}.source {one.source} answers files, which a juror can't; allowed: module:function or an "
                ".onnx file"
            )
    if teacher.source is None:
        return recipe
    if answers_files(teacher.source):
        _check_files(recipe)
    return with_features(recipe)


def _check_files(recipe: Recipe) -> None:
    """UserError where more would be asked than what was answered: the images of the generator, as they are."""
    source, generator = recipe.teacher.source, recipe.generator.source
    if generator is None:
        raise UserError(
            f"{SETTING} {source} answers images that are there already, but the generator would make others; "
            "needed: generator.source, the folder of those images (cgankd synthesize --export writes one)"
        )
    if recipe.synthesis.subsampling != "none":
        raise UserError(
            f"synthesis.subsampling = {recipe.synthesis.subsampling}, but {SETTING} {source} answers images that "
            "cgankd synthesize --export has subsampled; allowed: none"
        )
    _check_rows(recipe)


def asks_about_others(name: str) -> bool:
    """Whether the row asks the teacher about other images than those that somebody labelled in files."""
    return row(name).method != distill.SUPERVISED or row(name).pseudo


def _check_rows(recipe: Recipe) -> None:
    for name in filter(asks_about_others, recipe.rows):
        raise UserError(
            f"compare.methods holds {name!r}, which asks the teacher about further images, but one that answers "
            "files knows the exported ones alone; allowed: nokd, nokd_longer, augment, cgan and its ablation"
        )


def check_answers(teacher: BlackBox | None, generator: Sampler | None, splits: Splits) -> None:
    """UserError where images of the generator have no answer, or come from a run on other labelled images."""
    if isinstance(teacher, StoredAnswers):
        if not isinstance(generator, StoredImages):
            raise UserError(
                f"{SETTING} {teacher.name} answers images that are there already, but generator.source makes "
                "others; allowed: ready images"
            )
        missing = teacher.unanswered(generator.images)
        if missing:
            raise UserError(
                f"{SETTING} {teacher.name}: {missing:,} of generator.source's {len(generator.images):,} images "
                "have no answer; needed: one for each"
            )
        exported = Path(teacher.name).parent / EXPORT
        if exported.is_file() and read_json(exported)["train"] != splits.train.key():
            raise UserError(
                f"{SETTING} {teacher.name}: its images were exported by a run on other labelled images, which may "
                "be test images here; needed: that run's data settings (source, seed, sizes), or an export of this"
            )
