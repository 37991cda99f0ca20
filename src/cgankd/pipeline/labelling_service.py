"""A teacher that labels files offline: exports images, and makes a recipe that uses their labels.

``export`` runs the pipeline up to the density ratio and writes generated images, subsampled but not filtered, with the
owner's validation and test images. Somebody labels them. ``answered`` is the recipe with these labels as the teacher
and these images as the generator; it is run as any other recipe. Rows that match the teacher's outputs on the views of
their training, mixed images too, need a second round: ``export_views`` writes these views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from cgankd.config.recipe import Recipe
from cgankd.config.settings import EvenLabels, FitSettings, NoSubsampling, SynthesisSettings, TeacherSettings
from cgankd.core.errors import UserError, first_of
from cgankd.core.files import write_csv, write_json
from cgankd.core.progress import SILENT, Progress
from cgankd.core.run_folder import check_new, new_folder
from cgankd.core.runtime import CPU
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, as_bytes, contents
from cgankd.data.metadata_csv import LABEL, NAME
from cgankd.data.showing import picture
from cgankd.data.table import FILE
from cgankd.pipeline.preflight import EXPORT, check_processes, matches_views, needs_other_outputs, with_features
from cgankd.pipeline.run import Run, opened
from cgankd.synthesis.store import StoredFakes
from cgankd.tasks import Task
from cgankd.teachers.answers import views_file
from cgankd.teachers.opening import answers_files
from cgankd.training.teacher_cache import asked

CANDIDATES, VALIDATION, TEST = "candidates", "validation", "test"
SPARE = 1.25  # surplus of candidates, because labels do not pass the filter equally often


def export(
    recipe: Recipe,
    out: Path,
    folder: Path,
    candidates: int | None = None,
    progress: Progress = SILENT,
    *,
    deadline: float = math.inf,
) -> str:
    """Write the images that the teacher has to label to ``folder``. Returns a sentence on what was written.

    ``folder``/metadata.csv lists all files with their labels: candidates/ (the labels given to the generator),
    validation/ and test/ (the true labels). candidates/ has its own metadata.csv, as ready images need it. candidates:
    their number; None: 1.25 M / rho. Generator and density ratio are stored in ``out``; the seed is the recipe's first.
    Raises UserError where the folder is not empty, where a class has no candidate, or where the ratio or the generator
    would need the teacher for other images.
    """
    check_new(folder, "--export")
    if recipe.ratio.vicinity_gaps is not None and not isinstance(recipe.synthesis.subsampling, NoSubsampling):
        raise UserError("ratio.vicinity_gaps needs teacher outputs for images before their export; allowed: none")
    if recipe.generator.guidance is not None:
        raise UserError("generator.guidance needs the gradient of a teacher, which a service has not; allowed: none")
    placeholder = TeacherSettings(trained_on=recipe.teacher.trained_on)
    synthesis = with_spares(recipe.synthesis)
    recipe = with_features(recipe.model_copy(update={"teacher": placeholder, "synthesis": synthesis}))
    with opened(recipe, out, progress, deadline=deadline) as run:
        settings, task = recipe.synthesis, run.task
        rho = (settings.filter.rho or task.filter_quantile) if settings.filter else 1.0
        count = math.ceil(SPARE * settings.images / rho) if candidates is None else candidates
        fakes = StoredFakes(run.candidates(recipe.seeds[0], count)).open()
        check_each_class(fakes, task)
        reasons = run.fell_back(recipe.seeds[0])
        parts = {CANDIDATES: fakes, VALIDATION: run.splits.val, TEST: run.splits.test}
        with new_folder(folder, "--export") as work:
            _write(work, parts, task, progress)
            write_json(work / EXPORT, {"train": run.splits.train.content_key})
    sizes = ", ".join(f"{len(images):,} {name}" for name, images in parts.items())
    columns = f"; or {FILE} and a column per class" if task.answer_names else ""
    fallback = f"; not subsampled, because the density ratio fails its checks: {' '.join(reasons)}" if reasons else ""
    return (
        f"wrote {folder}: {sizes} images; let the teacher label the files of {folder / NAME}, write its predictions to "
        f"{folder / 'predictions.csv'} ({FILE},prediction{columns}), then use --import{fallback}"
    )


def with_spares(settings: SynthesisSettings) -> SynthesisSettings:
    """The settings with no more scalar labels than images, so that candidates beyond these are spare images of the same
    labels. More labels would have one image each, and none in its place where the filter drops it."""
    if not isinstance(settings.labels, EvenLabels):
        return settings
    labels = settings.labels.model_copy(update={"count": min(settings.labels.count, settings.images)})
    return settings.model_copy(update={"labels": labels})


def check_each_class(fakes: ImageSet, task: Task) -> None:
    """UserError where a class has no candidate, because the labelled images could then not be imported."""
    there = set(fakes.labels.tolist())
    empty = [name for number, name in enumerate(task.answer_names) if number not in there]
    if empty:
        raise UserError(
            f"of {len(fakes):,} candidates none is of class {first_of(empty, 5)}; needed: some of every class, so a "
            "larger --candidates, or synthesis.subsampling=none where the density ratio rejects a class"
        )


def export_views(
    recipe: Recipe, out: Path, answers: Path, progress: Progress = SILENT, *, deadline: float = math.inf
) -> tuple[str, Path]:
    """Write the views that rows such as ``kd`` and ``fm`` ask the teacher about. Returns what was written, and where.

    answers: the predictions for the images of :func:`export`; the views go to the folder ``views`` beside them, each
    once, with a metadata.csv. Labels are not listed, because a mixed image has none. Raises UserError where no row
    needs views, or the folder is not empty.
    """
    folder = views_file(answers).parent
    names = [name for name in recipe.compare.named if needs_other_outputs(name) and matches_views(name)]
    if not names:
        raise UserError("compare.methods holds no row that needs views; rows that match outputs do, such as kd and fm")
    first_round = answered(served(recipe)[0], answers)
    check_new(folder, "views")  # after the check of the predictions, because it makes the folder above
    with opened(first_round, out, progress, deadline=deadline) as run, new_folder(folder, "views") as work:
        files: set[str] = set()
        lessons = [(name, seed) for name in names for seed in recipe.seeds]
        with progress.bar("views", len(lessons)) as bar:
            for done, (name, seed) in enumerate(lessons, start=1):
                for images in _views(run, name, seed):
                    _write_new(work, images, files)
                bar.to(done)
        write_csv(work / NAME, [(FILE,), *((file,) for file in sorted(files))])
    return (
        f"wrote {folder}: {len(files):,} views for {', '.join(names)}; let the teacher label the files of "
        f"{folder / NAME}, write its predictions to {views_file(answers)}, and use --import {answers} again"
    ), folder


def _views(run: Run, name: str, seed: int) -> Iterator[Tensor]:
    """The images about which the student of row ``name`` asks its teacher, float32 [b, C, H, W]; some twice."""
    lesson = run.lesson(name, seed, run.recipe.student.transfer_steps)
    fit: FitSettings = lesson["fit"]
    batches = Batches(lesson["images"], run.task, fit.batch_size, fit.augment, seed, CPU)
    return asked(batches, fit.steps)


def _write_new(folder: Path, images: Tensor, files: set[str]) -> None:
    """Write the images that are not among ``files`` yet, float32 [b, C, H, W] in [0, 1]."""
    pixels = as_bytes(images)
    for content, image in zip(contents(pixels), pixels, strict=True):
        if (file := f"{content.hex()}.png") not in files:
            files.add(file)
            picture(image).save(folder / file)


def served(recipe: Recipe, answers: Path | None = None) -> tuple[Recipe, list[str]]:
    """The recipe without the rows that need teacher outputs for other images than the exported ones, and the names of
    these rows. answers: predictions, beside which there may be some for views.

    With ``auto`` the rows are the candidates and ``cgan``, the only one that learns from exported images alone.
    """
    check_processes(recipe, one=True)
    methods, views = recipe.compare.named, answers is not None and views_file(answers).is_file()
    methods = (*methods, "cgan") if recipe.compare.methods == "auto" else methods
    possible = tuple(name for name in methods if not needs_other_outputs(name) or (views and matches_views(name)))
    if not possible:
        raise UserError(
            "compare.methods holds no row that is possible with a teacher that labels files; allowed: nokd, "
            "nokd_longer, augment, cgan"
        )
    compare = recipe.compare.model_copy(update={"methods": possible})
    return recipe.model_copy(update={"compare": compare}), [name for name in methods if name not in possible]


def answered(recipe: Recipe, answers: Path) -> Recipe:
    """The recipe with the predictions as teacher and the exported images, already subsampled, as generator."""
    answers = answers.absolute()  # so that the run's recipe.yaml works from any folder
    images = answers.parent / CANDIDATES
    if not answers_files(str(answers)) or not answers.is_file() or not images.is_dir():
        raise UserError(
            f"--import {answers} is not a .csv file in the folder that --export wrote, beside {CANDIDATES}/"
        )
    changes = {
        "teacher": recipe.teacher.model_copy(update={"source": str(answers), "weights": None, "start": None}),
        "generator": recipe.generator.model_copy(update={"source": str(images), "size": None}),
        "synthesis": recipe.synthesis.model_copy(update={"subsampling": NoSubsampling()}),
        "student": recipe.student.model_copy(update={"refit": False}),  # no view of a validation image is labelled
    }
    return recipe.model_copy(update=changes)


def _write(folder: Path, parts: dict[str, ImageSet], task: Task, progress: Progress) -> None:
    all_rows: list[tuple[str, str]] = []
    with progress.bar("export", sum(len(images) for images in parts.values())) as bar:
        for name, images in parts.items():
            (folder / name).mkdir()
            rows = []
            labels = map(task.label_text, images.labels.tolist())
            # File names contain a digest, so that predictions for another export are not taken for these.
            digests = [content.hex()[:6] for content in contents(images.images)]
            for number, (digest, pixels, text) in enumerate(zip(digests, images.images[:], labels, strict=True)):
                file = f"{number:06d}-{digest}.png"
                picture(pixels).save(folder / name / file)
                rows.append((file, text))
                all_rows.append((f"{name}/{file}", text))
                bar.to(len(all_rows))
            if name == CANDIDATES:
                write_csv(folder / name / NAME, [(FILE, LABEL), *rows])
    write_csv(folder / NAME, [(FILE, LABEL), *all_rows])
