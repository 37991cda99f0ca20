"""Checks of a recipe before any training, so that mistakes are reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgankd import distill
from cgankd.config.recipe import Recipe
from cgankd.config.settings import (
    AutoencoderFeatures,
    ClassifierFeatures,
    FromWeights,
    GeneratorSettings,
    JurorSettings,
    NOKDFeatures,
    NoSubsampling,
    TeacherFeatures,
)
from cgankd.core import rng
from cgankd.core.blockwise import BLOCK
from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.files import read_json
from cgankd.core.plugins import is_function_name
from cgankd.core.runtime import CPU, make_fabric
from cgankd.core.shared_rows import check_batch
from cgankd.data.imageset import Splits
from cgankd.distill.limits import check_adversarial, check_answers_suffice
from cgankd.gan.adapters import StoredImages
from cgankd.gan.generator import Sampler, check_networks
from cgankd.gan.guidance import check_terms
from cgankd.metrics import robustness
from cgankd.nets import pretrained, trial, weights, zoo
from cgankd.nets.inference import to_input
from cgankd.pipeline import refit
from cgankd.pipeline.comparisons import FAKES, ROWS, check_views, partner, row, student_network, views
from cgankd.synthesis import adjust
from cgankd.tasks import outputs as output_kinds
from cgankd.tasks.outputs import AUTO, OutputKind, sentence
from cgankd.teachers.answers import StoredAnswers, views_file
from cgankd.teachers.black_box import SETTING, BlackBox
from cgankd.teachers.endpoint import check_address, is_address
from cgankd.teachers.opening import TRIED, answers_files
from cgankd.training.rehearsal import rehearse

CODE = ("network", "source")  # settings that may name a function, as module:function
EXPORT = "export.json"  # beside exported images: the key of the labelled images that their generator was trained on


# --- checks without images ----------------------------------------------------------------------------------------


def resolve(recipe: Recipe) -> Recipe:
    """The recipe, with features that its teacher can give; UserError for mistakes that need no images to be found."""
    check_names(recipe)
    _check_generator(recipe.generator)
    _check_teachers(recipe)
    return recipe if recipe.teacher.source is None else with_features(recipe)


def own_code(recipe: Recipe) -> list[str]:
    """A sentence that names the functions of the user's own that the recipe makes this run call; [] without any."""

    def named(tree: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
        if isinstance(tree, Mapping):
            for key, value in tree.items():
                yield from named(value, (*path, str(key)))
        elif isinstance(tree, list | tuple):
            for value in tree:
                yield from named(value, path)
        elif isinstance(tree, str) and path[-1] in CODE and is_function_name(tree):
            yield f"{'.'.join(path)} = {tree}"

    functions = list(dict.fromkeys(named(recipe.model_dump())))
    return [f"this run calls your own code: {', '.join(functions)}"] if functions else []


def check_processes(recipe: Recipe, *, one: bool = False) -> None:
    """UserError where the processes of a run can't share its batches, or ``one`` says that there can be one only."""
    devices, nodes = recipe.runtime.devices, recipe.runtime.nodes
    count = devices * nodes
    if one and count > 1:
        raise UserError(
            f"runtime.devices = {devices} and runtime.nodes = {nodes} are for cgankd run; allowed here: 1 and 1"
        )
    if recipe.runtime.strategy == "fsdp" and count == 1:
        raise UserError(
            "runtime.strategy = fsdp divides a teacher's weights among several processes, but runtime.devices = 1 and "
            "runtime.nodes = 1; allowed with it: runtime.strategy = ddp"
        )
    for name, fit in (("teacher", recipe.teacher.fit), ("student", recipe.student.fit)):
        check_batch(fit.batch_size, count, f"{name}.fit.")
    if recipe.generator.source is None:
        check_batch(recipe.generator.batch_size, count, "generator.")


def check_names(recipe: Recipe) -> None:
    """UserError for a row or method that is not known, and for @fake in a row without generated images."""
    for name in recipe.student.method_settings:
        distill.find(name)
    for name in recipe.rows:
        check_views(name)
        if row(name).pseudo and "@" in name:
            raise UserError(
                f"compare.methods holds {name!r}, but @real and @fake are for rows without unlabelled images; allowed: "
                f"{name.replace('@real', '').replace('@fake', '')}"
            )
        if not row(name).fakes and name.split("~")[0] not in ROWS and (alone := partner(FAKES + name)) != name:
            raise UserError(
                f"compare.methods holds {name!r}, a row without generated images, but @fake needs them; allowed: "
                f"{FAKES}{name}, and {alone}"
            )
        for method in distill.parts(row(name).method):
            if method not in distill.METHODS:
                known = [*ROWS, *distill.METHODS]
                raise UserError(
                    f"compare.methods holds {name!r}, which is not known{did_you_mean(method, known)}; allowed: "
                    f"{', '.join(ROWS)}, a method of `cgankd methods`, and cgan+, pseudo+ or "
                    "cgan+pseudo+ before one"
                )


def _check_teachers(recipe: Recipe) -> None:
    settings = recipe.teacher
    if settings.votes != "first" and not settings.jury:
        raise UserError(f"teacher.votes = {settings.votes} needs teacher.jury, which is empty; allowed: first")
    for name, teacher in settings.all():
        if is_address(teacher.source):
            check_address(str(teacher.source), f"{name}.source")
        ways = [way for way in ("source", "weights", "start") if getattr(teacher, way) is not None]
        if len(ways) > 1:
            raise UserError(f"{name}.{ways[0]} and {name}.{ways[1]} are both set; allowed: one of them")
        if teacher is not settings and answers_files(teacher.source):
            raise UserError(
                f"{name}.source {teacher.source} is a file of predictions, which a juror can't be; allowed: "
                "module:function, an .onnx file, or an address"
            )
    if answers_files(settings.source):
        _check_file_of_predictions(recipe)


def _check_generator(settings: GeneratorSettings) -> None:
    if settings.source is not None and settings.size is not None:
        raise UserError(
            f"generator.size = {settings.size} is the side of images of a GAN that is trained here, but "
            f"generator.source {settings.source} takes its place; allowed: one of the two"
        )


def _check_file_of_predictions(recipe: Recipe) -> None:
    """UserError where outputs for images would be needed that the file does not hold."""
    source = recipe.teacher.source
    if recipe.generator.source is None:
        raise UserError(
            f"{SETTING} {source} holds predictions for ready images, but the generator would make other ones; "
            "needed: generator.source, the folder of those images (cgankd synthesize --export writes one)"
        )
    if not isinstance(recipe.synthesis.subsampling, NoSubsampling):
        raise UserError(
            f"synthesis.subsampling = {recipe.synthesis.subsampling.kind}, but {SETTING} {source} holds predictions "
            "for images that cgankd synthesize --export has subsampled; allowed: none"
        )
    refit.check_predictions(recipe)
    for name in recipe.rows:
        if needs_other_outputs(name) and not (matches_views(name) and views_file(Path(str(source))).is_file()):
            raise UserError(
                f"compare.methods holds {name!r}, which needs teacher outputs for further images, but {SETTING} "
                f"{source} holds predictions for the exported images alone; allowed: nokd, nokd_longer, augment, cgan "
                "and its ablation; after cgankd synthesize --views also rows that match outputs, such as kd and fm"
            )


def needs_other_outputs(name: str) -> bool:
    """Whether the row needs teacher outputs for other images than the exported ones."""
    return row(name).method != distill.SUPERVISED or row(name).pseudo


def matches_views(name: str) -> bool:
    """Whether the row needs teacher outputs for the views on which its student is trained, and no others."""
    methods = [distill.find(part.partition("@")[0]) for part in distill.parts(row(name).method)]
    return not row(name).pseudo and all(method.matches_views() for method in methods)


def with_features(recipe: Recipe) -> Recipe:
    """The recipe with features of the NOKD student instead of the teacher, for a teacher that gives none."""
    ratio, metrics = recipe.ratio, recipe.metrics
    if isinstance(ratio.features, TeacherFeatures):
        ratio = ratio.model_copy(update={"features": NOKDFeatures()})
    if metrics.generator is not None and "teacher" in metrics.generator.features:
        generator = metrics.generator.model_copy(update={"features": ("nokd",)})
        metrics = metrics.model_copy(update={"generator": generator})
    return recipe.model_copy(update={"ratio": ratio, "metrics": metrics})


def weights_file(path: str) -> Path:
    """The file of ``teacher.weights``; UserError where it does not exist."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"teacher.weights = {path} does not exist; a .safetensors file is needed")
    return file


# --- checks with the images ---------------------------------------------------------------------------------------


def check(recipe: Recipe, splits: Splits) -> dict[str, OutputKind]:
    """UserError where the recipe does not fit the images. Returns the kind of outputs of each teacher's network, by
    setting."""
    adjust.check_filter(recipe.synthesis, splits.task)
    adjust.replacement(recipe.synthesis, splits.task)
    networks, kinds = _networks(recipe, splits)
    _check_rows(recipe, splits, networks)
    if recipe.metrics.robustness is not None:
        robustness.check(recipe.metrics.robustness, splits.task)
    return kinds


def _networks(recipe: Recipe, splits: Splits) -> tuple[dict[str, nn.Module], dict[str, OutputKind]]:
    """All networks by name, each tried on a few images, and the kind of outputs of each teacher's network, by setting.

    Teachers have their weights.
    """
    train, task = splits.train, splits.task
    networks: dict[str, nn.Module] = {}
    kinds: dict[str, OutputKind] = {}
    with rng.restored():
        for setting, name, teacher, batch_size in _named_networks(recipe):
            network, who = zoo.create(name, train.channels, task.num_outputs, train.size), f"{setting}.network {name!r}"
            if teacher is not None and teacher.weights is not None:
                _load(network, teacher.weights, splits)
                batch_size = None  # it is not trained here
            if start := _start_of(recipe, setting, teacher):
                pretrained.start_from(network, start, f"{setting}.start")
            stated = AUTO if teacher is None else teacher.outputs
            kind = _tried(who, network, splits, f"{setting}.outputs", stated, batch_size)
            if teacher is not None:
                kinds[setting] = kind
            else:
                output_kinds.check_unchanged(kind, who)
            networks[name] = network
        if recipe.generator.source is None:
            gan = recipe.generator.gan
            check_generator_size(recipe.generator.size, train.size)
            check_terms(gan, splits.task, recipe.teacher.source)
            check_networks(gan, recipe.generator.scalar, task, train.channels, recipe.generator.drawn(train.size))
    return networks, kinds


def _load(network: nn.Module, file: str, splits: Splits) -> None:
    """Load a teacher's weights. UserError, with what the data needs, where they are those of another network."""
    train, outputs = splits.train, splits.task.num_outputs
    try:
        weights.load_weights(network, weights_file(file))
    except UserError as error:
        raise UserError(
            f"{error} (the network is made for images [{train.channels}, {train.size[0]}, {train.size[1]}] and "
            f"{outputs} output{'s' if outputs > 1 else ''}, {output_kinds.why(outputs)})"
        ) from None


def _start_of(recipe: Recipe, setting: str, teacher: JurorSettings | None) -> str | None:
    """The file or package that the network of a setting starts from."""
    if teacher is not None:
        return teacher.start
    start = recipe.student.start
    return start.file if setting == "student" and isinstance(start, FromWeights) else None


def check_generator_size(drawn: int | None, size: tuple[int, int]) -> None:
    """UserError where a GAN can't draw images of the side ``drawn`` for images of ``size``, (height, width)."""
    if drawn is None:
        return
    height, width = size
    if height != width:
        raise UserError(
            f"generator.size = {drawn}, but the images have {width}x{height} pixels; needed: square ones (data.size)"
        )
    if drawn > width:
        raise UserError(
            f"generator.size = {drawn} is larger than the images, which have {width}x{height} pixels; allowed: 16 to "
            f"{width}"
        )


def _tried(
    who: str, network: nn.Module, splits: Splits, setting: str, stated: str, batch_size: int | None
) -> OutputKind:
    """The kind of a network's outputs, after trying it on a few training images.

    stated: the kind in the settings. batch_size: of its training; None: it is trained already.
    """
    few, task = splits.train.few(TRIED), splits.task
    images = to_input(few.images[:], CPU)
    outputs = trial.check_answers(who, network, images, task.num_outputs)
    trial.check_finite(who, outputs)
    if batch_size is not None:
        trial.check_learns(who, network, images[: min(2, batch_size)], task.num_outputs)
    return output_kinds.resolve(stated, outputs, few.labels, task, who, setting, trained=batch_size is None)


def _named_networks(recipe: Recipe) -> Iterator[tuple[str, str, JurorSettings | None, int | None]]:
    """For each network of the recipe: the setting, the network's name, a teacher's settings, and the batch size."""
    student, features, teacher = recipe.student, recipe.ratio.features, recipe.teacher
    for name in dict.fromkeys([student.network, *(student_network(name, student) for name in recipe.rows)]):
        yield "student", name, None, student.fit.batch_size
    for setting, member in teacher.all():
        if member.source is None:
            yield setting, member.network, member, teacher.fit.batch_size
    if isinstance(features, ClassifierFeatures | AutoencoderFeatures):
        yield "ratio.features", features.network, None, student.fit.batch_size


def _check_rows(recipe: Recipe, splits: Splits, networks: Mapping[str, nn.Module]) -> None:
    settings, source, votes = recipe.student, recipe.teacher.source, recipe.teacher.votes
    teacher = networks[recipe.teacher.network] if source is None and votes == "first" else None
    fabric = make_fabric("cpu", "fp32")
    for name in recipe.rows:
        compared = row(name)
        augment = views(compared, settings, splits.task)
        objective = distill.create(compared.method, splits.task, settings)
        check_adversarial(objective, settings.fit)
        if source is not None:
            check_answers_suffice(objective, "teacher.source is a black box")
        elif votes != "first":
            check_answers_suffice(objective, f"teacher.votes = {votes} combines several teachers")
        student = networks[student_network(name, settings)]
        rehearse(student, teacher, objective, splits.train, augment, fabric)
        if compared.pseudo and not len(splits.unlabelled):
            raise UserError(
                f"compare.methods holds {name}, but {splits.name} has no unlabelled images, because all "
                f"{len(splits.pool):,} are labelled; allowed: data.unlabelled (a folder of images), data.train_size "
                f"under {len(splits.pool)}, or the other methods"
            )


def output_notes(recipe: Recipe, kinds: Mapping[str, OutputKind], black_boxes: Mapping[str, BlackBox]) -> list[str]:
    """Sentences on teachers whose outputs hardly fit the labels, or are converted although no setting says so.

    kinds, black_boxes: by setting.
    """
    notes = [teacher.note for teacher in black_boxes.values() if teacher.note]
    for setting, teacher in recipe.teacher.all():
        if setting not in kinds:
            continue
        if kinds[setting].misfit:
            notes.append(kinds[setting].misfit)
        if kinds[setting].changes and teacher.outputs == AUTO:
            notes.append(sentence(kinds[setting], f"{setting}.network {teacher.network}", f"{setting}.outputs"))
    return notes


def check_predictions(teacher: BlackBox | None, generator: Sampler | None, splits: Splits) -> None:
    """UserError where a file of predictions lacks images of the generator, or belongs to other labelled images."""
    if not isinstance(teacher, StoredAnswers):
        return
    if not isinstance(generator, StoredImages):
        raise UserError(
            f"{SETTING} {teacher.name} holds predictions for ready images, but generator.source makes other ones; "
            "allowed: ready images"
        )
    missing = teacher.unanswered(generator.images)
    if missing:
        raise UserError(
            f"{SETTING} {teacher.name}: {missing:,} of generator.source's {len(generator.images):,} images "
            "have no prediction; needed: one for each"
        )
    exported = Path(teacher.name).parent / EXPORT
    if exported.is_file() and read_json(exported)["train"] != splits.train.content_key:
        raise UserError(
            f"{SETTING} {teacher.name}: its images were exported by a run on other labelled images, which may "
            "be test images here; needed: that run's data settings (source, seed, sizes), or a new export"
        )


def prediction_notes(teacher: BlackBox | None, generator: Sampler | None, splits: Splits) -> list[str]:
    """A sentence on a file of predictions that hardly fit the labels: of validation images, or else of the generator's
    if they are scalars."""
    if not isinstance(teacher, StoredAnswers) or not isinstance(generator, StoredImages):
        return []
    task, images, labels = splits.task, splits.val.images, splits.val.labels
    if teacher.unanswered(images):
        if not task.continuous:
            return []
        images, labels = generator.images, generator.labels
    outputs = torch.cat([teacher.raw_outputs(to_input(part, CPU)) for part in images.split(BLOCK)])
    kind = "label_unit" if "label_unit" in task.converted_kinds else task.output_kinds[0]
    predictions = task.from_target(outputs[:, 0])[:, None] if kind == "label_unit" else outputs
    misfit = task.misfit(predictions, labels, kind)
    return [f"{SETTING} {teacher.name}: {misfit}"] if misfit else []
