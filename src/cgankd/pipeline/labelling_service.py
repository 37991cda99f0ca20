"""A teacher that labels files offline: exports images, and makes a recipe that uses their labels.

``export`` runs the pipeline up to the density ratio and writes generated images, subsampled but not filtered, with the
owner's validation and test images. Somebody labels them. ``answered`` is the recipe with these labels as the teacher
and these images as the generator; it is run as any other recipe.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from cgankd.config.recipe import Recipe
from cgankd.config.settings import NoSubsampling, TeacherSettings
from cgankd.core.errors import UserError
from cgankd.core.files import replacing, write_json
from cgankd.core.progress import SILENT, Progress
from cgankd.core.run_folder import check_new, new_folder
from cgankd.data.imageset import ImageSet, contents
from cgankd.data.metadata_csv import LABEL, NAME
from cgankd.data.table import FILE
from cgankd.pipeline.preflight import EXPORT, check_processes, needs_other_outputs, with_features
from cgankd.pipeline.run import opened
from cgankd.synthesis.store import StoredFakes
from cgankd.tasks import Task
from cgankd.teachers.opening import answers_files

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
    Raises UserError where the folder is not empty, or where the ratio would need teacher outputs for other images.
    """
    check_new(folder, "--export")
    if recipe.ratio.vicinity_gaps is not None and not isinstance(recipe.synthesis.subsampling, NoSubsampling):
        raise UserError("ratio.vicinity_gaps needs teacher outputs for images before their export; allowed: none")
    placeholder = TeacherSettings(trained_on=recipe.teacher.trained_on)
    recipe = with_features(recipe.model_copy(update={"teacher": placeholder}))
    with opened(recipe, out, progress, deadline=deadline) as run:
        settings, task = recipe.synthesis, run.task
        rho = (settings.filter.rho or task.filter_quantile) if settings.filter else 1.0
        count = math.ceil(SPARE * settings.images / rho) if candidates is None else candidates
        fakes = StoredFakes(run.candidates(recipe.seeds[0], count)).open()
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


def served(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe without the rows that need teacher outputs for other images than the exported ones, and the names of
    these rows."""
    check_processes(recipe, one=True)
    methods = recipe.compare.named
    possible = tuple(name for name in methods if not needs_other_outputs(name))
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
        "generator": recipe.generator.model_copy(update={"source": str(images)}),
        "synthesis": recipe.synthesis.model_copy(update={"subsampling": NoSubsampling()}),
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
            for number, (digest, pixels, text) in enumerate(zip(digests, images.images, labels, strict=True)):
                file = f"{number:06d}-{digest}.png"
                _picture(pixels).save(folder / name / file)
                rows.append((file, text))
                all_rows.append((f"{name}/{file}", text))
                bar.to(len(all_rows))
            if name == CANDIDATES:
                _list(folder / name / NAME, rows)
    _list(folder / NAME, all_rows)


def _picture(pixels: Tensor) -> Image.Image:
    """uint8 [C, H, W] as grey or RGB."""
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def _list(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([(FILE, LABEL), *rows])
