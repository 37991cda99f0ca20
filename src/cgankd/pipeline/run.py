"""The pipeline: data -> teacher, NOKD student -> generator -> density ratio -> synthesis -> students -> results.

The file to read first. :class:`Run` calls each stage (stages/) with its arguments, through the store (core/store.py),
which returns finished artifacts without computing them again. gathering.py calls it for every seed and row
(comparisons.py) of a recipe, and results.py makes results.json of the artifacts.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cgankd.config.recipe import Recipe
from cgankd.config.settings import FitSettings, FromNOKD, FromWeights, NoSubsampling, Subsampling, SynthesisSettings
from cgankd.core import ranks, rng
from cgankd.core.progress import SILENT, Progress
from cgankd.core.run_folder import check_recipe
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Artifact, Store
from cgankd.data import sources
from cgankd.data.apart import check_apart
from cgankd.data.imageset import ImageSource, Splits, TrainingImages, together
from cgankd.distill import SUPERVISED, MethodStack
from cgankd.gan.adapters import open_source
from cgankd.gan.generator import GeneratorSource, Sampler, TrainedGenerator
from cgankd.labels import label_space
from cgankd.nets.build import BEST, WEIGHTS, Architecture, NetworkSource, StoredNetwork
from cgankd.nets.pretrained import PretrainedWeights
from cgankd.pipeline import autopilot, preflight, results, stages
from cgankd.pipeline.comparisons import Row, needs_pseudo_labels, row, student_network, views
from cgankd.pipeline.inputs import (
    Extractor,
    ProposalSource,
    PseudoLabelled,
    Student,
    Surroundings,
    Teachers,
    Unanswered,
)
from cgankd.pipeline.processing import process, train_gan
from cgankd.pipeline.ratio_features import ratio_features
from cgankd.pipeline.search import choose
from cgankd.synthesis import adjust, checks
from cgankd.synthesis.density_ratio import StoredRatio
from cgankd.synthesis.store import StoredFakes
from cgankd.tasks.outputs import OutputKind
from cgankd.teachers.black_box import BlackBox
from cgankd.teachers.opening import open_teachers, shown_name


def run(
    recipe: Recipe,
    out: Path,
    progress: Progress = SILENT,
    *,
    deadline: float = math.inf,
    artifacts: Path | None = None,
    trials: Callable[[Run], autopilot.Prepare] | None = None,
) -> dict[str, Any]:
    """Run the pipeline for every seed of the recipe, and write recipe.yaml and results.json to ``out``, and with
    ``data.skip_bad`` rejected.csv.

    Finished artifacts are used again. artifacts: a folder for artifacts that several runs share; None: ``out``. trials:
    how the autopilot's trials are made several at once; None: one after the other. Raises UserError for what the user
    can fix, and OutOfTime where time.monotonic has passed ``deadline``, at the next checkpoint or before the next
    stage.
    """
    check_recipe(out, recipe.name)
    check_apart(out, recipe.data)
    started = time.monotonic()
    with opened(recipe, out, progress, deadline=deadline, artifacts=artifacts) as this_run:
        import_seconds = time.monotonic() - started
        if trials is not None:
            prepare = trials(this_run)
            this_run.flight = functools.cache(functools.partial(autopilot.choose, this_run, prepare=prepare))
        return results.write(this_run, import_seconds)


@contextlib.contextmanager
def opened(
    recipe: Recipe, out: Path, progress: Progress = SILENT, *, deadline: float = math.inf, artifacts: Path | None = None
) -> Iterator[Run]:
    """The run of a recipe, with its images read and its settings checked. No other process can use its folder."""
    recipe = preflight.resolve(recipe)
    preflight.check_processes(recipe, one=artifacts is not None)
    runtime = recipe.runtime
    fabric = make_fabric(**runtime.model_dump(exclude={"checkpoint_seconds"}))
    progress = progress if ranks.is_first() else progress.hushed()
    store = Store(  # before the images are read, which takes long, because it refuses a folder that can't be used
        out, fabric, progress, artifacts=artifacts, deadline=deadline, checkpoint_seconds=runtime.checkpoint_seconds
    )
    try:
        for sentence in preflight.own_code(recipe):
            progress.say(sentence)
        with progress.bar("reading images", 1) as bar:
            splits = ranks.in_turn(
                lambda: sources.load(recipe.data, lambda done, total: bar.to(done / total), progress)
            )
        kinds = ranks.first(lambda: preflight.check(recipe, splits))
        yield ranks.in_turn(lambda: Run(recipe, splits, store, kinds))
    finally:
        store.close()


class Run:
    """Calls each stage with its arguments. ``seed`` is always the seed of the stage's own random numbers.

    kinds: the kind of outputs of the teachers' networks, by setting; a missing one is the kind that losses take.
    Raises UserError where the recipe names a teacher or generator that can't be opened, or that does not fit.
    """

    def __init__(
        self, recipe: Recipe, splits: Splits, store: Store, kinds: Mapping[str, OutputKind] | None = None
    ) -> None:
        self.recipe, self.splits, self.store, self.task = recipe, splits, store, splits.task
        self.before: Run | None = None  # the run whose generated and pseudo-labelled images this one uses (refit.py)
        train = splits.train
        self.around = Surroundings(splits.task, splits.val, splits.test)
        self.space = label_space(self.task, self.task.to_target(train.labels))
        self.ready_generator: Sampler | None = None
        if recipe.generator.source is not None:
            self.ready_generator = open_source(
                recipe.generator.source, self.task, train.channels, train.size, recipe.data.label_column, store.progress
            )
        answers = ranks.written_by_first(store.artifacts / "answers")
        self.black_boxes = open_teachers(recipe.teacher, self.task, train, answers)
        preflight.check_predictions(self.black_box, self.ready_generator, splits)
        self.kinds = {setting: kind for setting, kind in (kinds or {}).items() if kind.changes}
        self.output_notes = [
            *preflight.output_notes(recipe, kinds or {}, self.black_boxes),
            *preflight.prediction_notes(self.black_box, self.ready_generator, splits),
        ]
        for note in self.output_notes:
            store.progress.say(note)
        self.replace = adjust.replacement(recipe.synthesis, self.task)
        self.choice = functools.cache(functools.partial(choose, self))
        self.flight = functools.cache(functools.partial(autopilot.choose, self))

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the table: those of the recipe, or the control and the row that the autopilot chooses."""
        return self.flight().rows if self.recipe.compare.methods == "auto" else self.recipe.rows

    @property
    def black_box(self) -> BlackBox | None:
        """The black box that is the first teacher; None: the first teacher is a network."""
        return self.black_boxes.get("teacher")

    def upstream(self, seed: int) -> int:
        """The seed of teacher and generator for a student's seed."""
        return seed if self.recipe.vary == "everything" else self.recipe.seeds[0]

    def upstreams(self) -> list[int]:
        """The seeds of all teachers and generators."""
        return list(dict.fromkeys(self.upstream(seed) for seed in self.recipe.seeds))

    def _titled(self, title: str, seed: int) -> Store:
        """The store with a stage's title; the seed is part of it where there is more than one."""
        several = self.recipe.vary == "everything" and len(self.recipe.seeds) > 1
        return self.store.titled(f"{title} (seed {seed})" if several else title)

    # --- data, teachers, students ---------------------------------------------------------------------------------

    def data(self) -> Artifact:
        """Counts, label histograms and a few images, for the report."""
        return self.store.titled("data").call(stages.describe_data, splits=self.splits)

    def teacher(self, seed: int) -> Artifact:
        """The teacher, a network or a black box, with all its scores in its summary, as :meth:`student`."""
        teacher = self._member(0, seed)
        if self.black_box is not None:
            return teacher
        tested = self.store.titled(f"teacher (seed {seed}), test split").call(
            stages.score_teacher, teacher=StoredNetwork(teacher), test=self.splits.test, task=self.task
        )
        return stages.with_scores(teacher, tested)

    def _member(self, number: int, seed: int) -> Artifact:
        """The teacher, or the juror of this number, not scored on the test split. Each has its own seed."""
        setting, teacher = self.recipe.teacher.all()[number]
        title = f"juror {number}" if number else f"teacher (seed {seed})"
        settings, store = self.recipe.teacher, self.store.titled(title)
        network = Architecture(teacher.network, self.kinds.get(setting))
        if teacher.source is not None:
            box, name = self.black_boxes[setting], shown_name(teacher.source)
            return store.call(stages.score_black_box, teacher=box, name=name, around=self.around)
        if teacher.weights is not None:
            return store.call(
                stages.load_network,
                network=network,
                file=preflight.weights_file(teacher.weights),
                normalised_by=(self.before or self).splits.train,
                val=self.splits.val,
                task=self.task,
            )
        return store.call(
            stages.train_network,
            network=network,
            start=None if teacher.start is None else PretrainedWeights(teacher.start, f"{setting}.start"),
            images=TrainingImages(self.splits.pool if settings.trained_on == "pool" else self.splits.train),
            fit=settings.fit,
            val=self.splits.val,
            task=self.task,
            seed=rng.key(seed, "juror", number) if number else seed,
        )

    def teachers(self, seed: int, *, jury: bool) -> tuple[NetworkSource, ...]:
        """The teacher, and with ``jury`` the further ones, as arguments of stages."""
        every = self.recipe.teacher.all()[: None if jury else 1]
        members = [(setting, self._member(number, seed)) for number, (setting, _) in enumerate(every)]
        return tuple(self.black_boxes.get(setting) or StoredNetwork(artifact) for setting, artifact in members)

    def nokd(self, seed: int) -> Artifact:
        """The student trained on labels alone, for its own number of steps; not scored on the test split."""
        settings = self.recipe.student
        lesson = {
            "student": Student(Architecture(settings.network), MethodStack(SUPERVISED), self._weights()),
            "teachers": None,
            "images": TrainingImages(self.splits.train),
            "fit": settings.fit,
        }
        return self._trained(f"nokd (seed {seed})", lesson, seed)

    def trial(self, name: str, seed: int, steps: int) -> Artifact:
        """The student of row ``name`` after ``steps`` steps; not scored on the test split."""
        full = steps == self.recipe.student.transfer_steps
        title = f"{name} (seed {seed})" if full else f"trial of {name}, {steps} steps"
        return self._trained(title, self.lesson(name, seed, steps), seed)

    def _trained(self, title: str, lesson: Mapping[str, Any], seed: int) -> Artifact:
        return self.store.titled(title).call(
            stages.train_student, **lesson, val=self.splits.val, task=self.task, seed=seed
        )

    def student(self, name: str, seed: int) -> Artifact:
        """The student of row ``name``, with its scores on the test split too in its summary, which is empty until these
        are there."""
        longer = row(name).longer
        trained = self.trial(name, seed, self.recipe.student.transfer_steps) if longer else self.nokd(seed)
        tested = self.store.titled(f"{name} (seed {seed}), test split").call(
            stages.score_student, student=trained, test=self.splits.test, task=self.task
        )
        return stages.with_scores(trained, tested)

    def lesson(self, name: str, seed: int, steps: int) -> dict[str, Any]:
        """Arguments of the stages that train the student of row ``name``: what it learns from, and how."""
        compared, settings, upstream = row(name), self.recipe.student, self.upstream(seed)
        fit, start = self.transfer(seed, {"steps": steps, "augment": views(compared, settings, self.task)})
        methods = MethodStack.of(compared.method, self.task, settings)
        return {
            "student": Student(Architecture(student_network(name, settings)), methods, start),
            "teachers": self.distilled(upstream) if methods.numbers else None,
            "images": self._images(name, upstream),
            "fit": fit,
        }

    def shipped(self, student: Artifact) -> StoredNetwork:
        """The student with the weights that ``student.ships`` names."""
        return StoredNetwork(student, WEIGHTS if self.recipe.student.ships == "last" else BEST)

    def transfer(
        self, seed: int, changes: dict[str, Any]
    ) -> tuple[FitSettings, StoredNetwork | PretrainedWeights | None]:
        """The training settings of a row with ``changes``, and the weights that it starts from."""
        settings = self.recipe.student
        start: StoredNetwork | PretrainedWeights | None = self._weights()
        if isinstance(settings.start, FromNOKD):
            start = StoredNetwork(self.nokd(seed))
            changes = {**changes, "learning_rate": settings.start.learning_rate}
        return settings.fit.model_copy(update=changes), start

    def _weights(self) -> PretrainedWeights | None:
        """The weights of another task that all students start from; None: they start from none."""
        start = self.recipe.student.start
        return PretrainedWeights(start.file, "student.start") if isinstance(start, FromWeights) else None

    def distilled(self, seed: int) -> Teachers:
        """The teachers whose outputs distillation matches."""
        votes = self.recipe.teacher.votes
        return Teachers(self.teachers(seed, jury=votes != "first"), votes)

    def _images(self, name: str, seed: int) -> TrainingImages:
        """The training images of the student of row ``name``."""
        compared, share, before = row(name), self.recipe.student.real_share, self.before or self
        further: list[ImageSource] = []
        if needs_pseudo_labels(name, self.recipe.student, self.task):
            further.append(PseudoLabelled(before.splits.unlabelled, before.pseudo(seed)))
        elif compared.pseudo:
            further.append(Unanswered(before.splits.unlabelled, before.splits.train.labels[:1]))
        if compared.fakes:
            replace = compared.ablation.replace if compared.ablation else self.replace
            further.append(StoredFakes(before.synthesis(seed, compared), replace))
        return TrainingImages(self.splits.train, together(further), share if further else None)

    def pseudo(self, seed: int) -> Artifact:
        """The teacher's labels for the unlabelled real images."""
        return self._titled("labels of unlabelled images", seed).call(
            stages.pseudo_label,
            images=self.splits.unlabelled,
            teacher=self.teachers(seed, jury=False)[0],
            task=self.task,
        )

    # --- generator and density ratio ------------------------------------------------------------------------------

    def generator(self, seed: int) -> Artifact:
        """The conditional GAN, trained on the owner's images, or a few images of another generator for the report."""
        train, store = self.splits.train, self._titled("generator", seed)
        if self.ready_generator is not None:
            return store.call(
                stages.show_generator, generator=self.ready_generator, train=train, task=self.task, seed=seed
            )
        teacher = self.teachers(seed, jury=False)[0] if self.recipe.generator.guidance else None
        return train_gan(store, self.recipe.generator, train, self.task, teacher, seed)

    def along_labels(self, seed: int) -> Artifact:
        """Images of the generator along the range of a scalar label, for the report."""
        return self.store.call(stages.draw_along_labels, generator=self.sampler(seed), task=self.task, seed=seed)

    def sampler(self, seed: int) -> GeneratorSource:
        """The generator, as an argument of stages."""
        return self.ready_generator or TrainedGenerator(self.generator(seed))

    def extractor(self, seed: int, *, with_outputs: bool, jury: bool = False, stand_in: bool = False) -> Extractor:
        """The networks that read images. with_outputs: are outputs needed? stand_in: see :func:`ratio_features`."""
        features = ratio_features(self, seed, stand_in=stand_in)
        if features is not None and not with_outputs:
            return Extractor(None, features)
        teacher, *others = self.teachers(seed, jury=jury)
        votes = self.recipe.teacher.votes
        return Extractor(teacher, features, tuple(others), votes) if jury else Extractor(teacher, features)

    def ratio(self, seed: int) -> Artifact:
        """The conditional density ratio."""
        settings = self.recipe.ratio
        return self._titled("density ratio", seed).call(
            stages.train_density_ratio,
            train=self.splits.train,
            val=self.splits.val,
            task=self.task,
            generator=self.sampler(seed),
            extractor=self.extractor(seed, with_outputs=settings.vicinity_gaps is not None),
            settings=settings.fit,
            seed=seed,
        )

    def fell_back(self, seed: int) -> list[str]:
        """The checks that the density ratio fails, because of which images are not subsampled."""
        return self._subsampling(self.recipe.synthesis, seed)[1]

    def _subsampling(self, settings: SynthesisSettings, seed: int) -> tuple[Subsampling, list[str]]:
        if isinstance(settings.subsampling, NoSubsampling):
            return settings.subsampling, []
        ratio = self.ratio(seed).summary
        return checks.fall_back(settings.subsampling, ratio) if ratio else (settings.subsampling, [])

    # --- synthesis ------------------------------------------------------------------------------------------------

    def synthesis(self, seed: int, compared: Row) -> Artifact:
        """The generated images of a row's student, with the teacher's predictions."""
        settings = self.processing(seed)
        return self.images(seed, compared.ablation.applied(settings) if compared.ablation else settings)

    def candidates(self, seed: int, count: int) -> Artifact:
        """Generated images for a teacher that will label them: subsampled, not filtered."""
        changes = {"images": count, "filter": None}
        return self.images(seed, self.recipe.synthesis.model_copy(update=changes), with_outputs=False)

    def images(self, seed: int, settings: SynthesisSettings, with_outputs: bool = True) -> Artifact:
        """Synthesis with given settings. with_outputs: whether to compute teacher outputs."""
        subsampling, _ = self._subsampling(settings, seed)
        held = None if self.ready_generator is None else self.ready_generator.held
        source = ProposalSource(
            self.sampler(seed),
            self.extractor(seed, with_outputs=with_outputs, jury=with_outputs, stand_in=not with_outputs),
            None if isinstance(subsampling, NoSubsampling) else StoredRatio(self.ratio(seed)),
            self.task,
            seed,
            settings.batch_size,
            settings.max_draws,
        )
        return process(
            self._titled("synthesis", seed),
            source,
            self.space.plan(settings, held),
            settings,
            subsampling,
            features=self.extractor(seed, with_outputs=False, stand_in=not with_outputs),
            keep_probabilities=self.replace == "soft",
        )

    def processing(self, seed: int) -> SynthesisSettings:
        """The synthesis settings of the recipe, or those that the search chose."""
        choice = self.choice(seed)
        return self.recipe.synthesis if choice is None else choice.settings
