"""The Python interface: the pipeline for a user's own arrays and modules.

A module, teacher or student, takes float images [B, C, H, W] in [0, 1] and gives logits [B, classes], or [B, 1]:
the label mapped to [0, 1] by the task's range (``LabelUnit`` wraps a module that predicts in the label's own unit).
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from cgankd.config.settings import (
    FitSettings,
    GeneratorSettings,
    NoSubsampling,
    RatioSettings,
    StudentSettings,
    SynthesisSettings,
    TeacherFeatures,
)
from cgankd.config.yaml_config import from_tree
from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key, tensor_key
from cgankd.core.paths import expanded
from cgankd.core.plugins import source_key, tried
from cgankd.core.progress import SILENT, Progress
from cgankd.core.runtime import Fabric, make_fabric, plain_torch
from cgankd.core.store import Artifact, Store, Work
from cgankd.data.given import arrays, image_set, unlabelled_images
from cgankd.data.imageset import ImageSet, ImageSource, TrainingImages, together
from cgankd.distill import MethodStack
from cgankd.gan.adapters import CallableSampler, check_repeats, open_source
from cgankd.gan.generator import GeneratorSource, Sampler, TrainedGenerator
from cgankd.gan.guidance import check_terms
from cgankd.labels import label_space
from cgankd.looks import Looks
from cgankd.nets import inference, trial
from cgankd.nets.build import WEIGHTS, CallableTeacher, ConvertedFunction, ModuleNetwork, NetworkSource, fresh_copy
from cgankd.pipeline import stages
from cgankd.pipeline.comparisons import as_method
from cgankd.pipeline.inputs import Extractor, ProposalSource, PseudoLabelled, Teachers, Unanswered
from cgankd.pipeline.preflight import check_generator_size
from cgankd.pipeline.processing import process, train_gan
from cgankd.synthesis import adjust, checks
from cgankd.synthesis.density_ratio import RatioNetwork, StoredRatio
from cgankd.synthesis.store import StoredFakes
from cgankd.tasks import Regression, Task
from cgankd.tasks.outputs import AUTO, check_unchanged, resolve, sentence, unsteady
from cgankd.training.rehearsal import rehearse
from cgankd.training.scoring import scored

METHOD_NUMBERS = {"temperature", "label_weight", "teacher_weight", "method_settings"}  # of StudentSettings
TRIAL_IMAGES = 16  # images on which teachers are tried


class LabelUnit(nn.Module):
    """Wraps a regressor that predicts in the label's own unit: its [B, 1] or [B] -> [B, 1], mapped to [0, 1].

    For a label that wraps -> [B, 2], cosine and sine.
    """

    def __init__(self, network: nn.Module, task: Regression) -> None:
        super().__init__()
        self.network, self.task = network, task

    def forward(self, images: Tensor) -> Tensor:
        return self.task.from_kind(self.network(images).reshape(-1, 1), "label_unit")


@dataclasses.dataclass(repr=False)
class Distiller(Looks):
    """The pipeline from labelled images and a teacher to a student.

    images: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]. labels: integers [N] (classes) or decimals [N] (a scalar of
    any range and sign). teacher: a module, or any callable on float images in [0, 1]. A callable gives no features, so
    ``features_of`` must then be a module that was trained on the images. jury: further teachers, which count in the
    filter and in replaced labels. votes: the outputs that distillation matches: first (of the teacher alone), mean or
    confidence (of all teachers; the weights of the latter also apply to errors and replaced labels), as
    ``teacher.votes`` of a recipe. outputs: the kind of outputs of teacher and jury, as ``teacher.outputs`` of a recipe.
    auto: recognised from the outputs for a few images, with a warning where outputs are converted. held_out: further
    images and labels, by which the weights of the density ratio are chosen and checked (``ratio_check``). Without them
    the density ratio may memorise its images without any sign of it. out: a folder for results; the same calls find
    them there, and an interrupted program resumes. None: a temporary folder. progress: ``cgankd.show_progress()``.

    Between the steps, ``generate``, ``curves``, ``checks``, ``counts``, ``examples``, ``compare`` (looks.py) show it.
    Stages run when they are first needed, with default steps that take minutes to hours on a processor, or when they
    are called by name with settings. A new call of a stage discards the results of the stages after it.

    Raises UserError for arguments that can't be used.
    """

    images: npt.ArrayLike | Tensor
    labels: npt.ArrayLike | Tensor
    teacher: inference.Predictor
    task: Task | None = None
    features_of: nn.Module | None = None
    jury: Sequence[inference.Predictor] = ()
    votes: str = "first"
    outputs: str = AUTO
    held_out: tuple[npt.ArrayLike | Tensor, npt.ArrayLike | Tensor] | None = None
    seed: int = 0
    out: Path | str | None = None
    fabric: Fabric | None = None
    progress: Progress = SILENT

    @plain_torch()
    def __post_init__(self) -> None:
        if not isinstance(self.progress, Progress):
            raise UserError(f"progress is {self.progress!r}; needed: cgankd.show_progress(), or nothing")
        if not isinstance(self.task, Task | None):
            raise UserError(f"task is {self.task!r}; needed: such as cgankd.Regression(low, high), or nothing")
        if not hasattr(self.seed, "__index__"):  # numpy's whole numbers have it too
            raise UserError(f"seed is {self.seed!r}; needed: a whole number")
        self.seed = int(self.seed)
        if self.fabric is not None and not hasattr(self.fabric, "autocast"):
            raise UserError(f"fabric is {self.fabric!r}; needed: a lightning_fabric.Fabric, or nothing")
        self.data, self.task = image_set(self.images, self.labels, self.task)
        self.task.check_labels(self.data.labels, "labels")
        self.unseen = None if self.held_out is None else self._held_out(self.held_out)
        self.device: Fabric = self.fabric or make_fabric()
        self.few = self.data.few(TRIAL_IMAGES)
        named = [("the teacher", self.teacher), *((f"juror {n}", juror) for n, juror in enumerate(self.jury, start=1))]
        sources = [self._source(who, predictor) for who, predictor in named]
        self.teachers = Teachers(tuple(sources[:1] if self.votes == "first" else sources), self.votes)
        self.teachers.open(self._task, self.device)  # so that unknown votes are refused at once
        features = None if self.features_of is None else ModuleNetwork(self._feature_network(self.features_of))
        self.extractor = Extractor(sources[0], features, tuple(sources[1:]), self.votes)
        with self.extractor.open(self.device) as extractor:  # so that missing features are reported before training
            extractor.votes(self.few.images[:2])
        if self.out is None:
            self.store = Store.temporary(self.device, self.progress)
        else:
            folder = expanded(self.out)
            self.store = Store(folder, self.device, self.progress, command="Distiller", take_over=True, option="out")
        self._generator: GeneratorSource | None = None
        self._ratio: Artifact | None = None
        self.synthesis, self.history = None, []
        self.fell_back: list[str] = []  # the failed checks because of which images were not subsampled

    def _held_out(self, pair: tuple[npt.ArrayLike | Tensor, npt.ArrayLike | Tensor]) -> ImageSet:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError("held_out is no pair; needed: held_out=(images, labels)")
        return self._unseen(*pair, " of held_out")

    def _unseen(self, images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor, where: str = "") -> ImageSet:
        unseen = arrays(images, labels, self._task)
        self._task.check_test_labels(unseen.labels, f"labels{where}")
        if unseen.images.shape[1:] != self.data.images.shape[1:]:
            found, needed = (list(part.images.shape[1:]) for part in (unseen, self.data))
            raise UserError(f"images{where} are {found} each; needed: {needed}, as the others")
        return unseen

    @property
    def _task(self) -> Task:
        assert self.task is not None
        return self.task

    def _source(self, who: str, predictor: inference.Predictor) -> NetworkSource:
        """A teacher, tried on a few images, with its outputs converted to the kind that losses take."""
        few = self.few.images[:]
        if isinstance(predictor, nn.Module):
            trial.check_state(who, predictor)
        outputs = self._asked(who, predictor, few)
        trial.check_finite(who, outputs)
        kind = resolve(self.outputs, outputs, self.few.labels, self._task, who, "outputs")
        if kind.misfit:
            warnings.warn(kind.misfit, stacklevel=6)
        gives = kind if kind.changes else None
        if gives is not None and self.outputs == AUTO:
            warnings.warn(sentence(gives, who, "outputs"), stacklevel=6)
        if isinstance(predictor, nn.Module):
            return ModuleNetwork(predictor, gives, outputs)
        if changing := unsteady(who, lambda part: self._asked(who, predictor, part), few, outputs):
            warnings.warn(changing, stacklevel=6)
        converted = "" if gives is None else gives.content_key
        mixtures = few // 2 + few.roll(1, 0) // 2  # classifiers that learnt few by heart differ here
        further = self._asked(who, predictor, mixtures)
        seen = [tensor_key(inference.plain(part).cpu()) for part in (outputs, further)]
        key = content_key(source_key(predictor), *seen, converted)
        return CallableTeacher(predictor if gives is None else ConvertedFunction(predictor, gives), key)

    def _asked(self, who: str, predictor: inference.Predictor, images: Tensor) -> Tensor:
        """The outputs of a teacher for a few uint8 images."""
        return trial.check_predictor(who, predictor, images, self._task.num_outputs, self.device)

    def _feature_network(self, network: nn.Module) -> nn.Module:
        """A module for features, tried on a few images."""
        if not isinstance(network, nn.Module):
            raise UserError(f"features_of is {network!r}; needed: a torch.nn.Module")
        trial.check_runs("features_of", network, inference.to_input(self.few.images[:], trial.device(network)))
        trial.check_state("features_of", network)
        return network

    # --- the stages -----------------------------------------------------------------------------------------------

    @plain_torch()
    def train_generator(self, **settings: Any) -> Sampler:
        """Train the conditional GAN. settings: those of GeneratorSettings."""
        chosen = from_tree(GeneratorSettings, settings, where="train_generator")
        check_generator_size(chosen.size, self.data.size)
        check_terms(chosen.gan, self._task, None if isinstance(self.teacher, nn.Module) else "a callable")
        artifact = train_gan(self.store, chosen, self.data, self._task, self.extractor.teacher, self.seed)
        self.history = artifact.summary["history"]
        self._use(TrainedGenerator(artifact))
        return self._sampler()

    @plain_torch()
    def use_generator(self, generator: Callable[[Tensor, Tensor, int], Tensor] | Sampler | Path | str) -> None:
        """Use another generator instead of the GAN.

        generator: a function ``(targets, indices, seed) -> uint8 [B, C, H, W]``, a Sampler, or a source as in
        ``generator.source`` of a recipe: "module:function", an .onnx file, or ready images with labels. Raises
        UserError for a source that can't be used.
        """
        channels, size = self.data.channels, self.data.size
        if isinstance(generator, str | Path):
            generator = open_source(str(generator), self._task, channels, size)
        elif not isinstance(generator, Sampler):
            if not callable(generator):
                raise UserError(f"the generator is {generator!r}; needed: a function, a Sampler, or a source")
            name = getattr(generator, "__name__", type(generator).__name__)
            generator = CallableSampler(generator, (channels, *size), name)
            check_repeats(generator, self._task.to_target(self.data.labels[:2]), f"generator {name}")
        if not getattr(generator, "content_key", ""):
            generator = copy.copy(generator)  # the key is not kept with it, because its weights may change later
            generator.content_key = self._sampled_key(generator)
        self._use(generator)

    def _sampled_key(self, generator: Sampler) -> str:
        """The content key of a generator without one: the hash of its images at a few labels."""
        few = self.data.labels[:: max(1, len(self.data) // TRIAL_IMAGES)]
        with tried(f"the generator: drawing {len(few)} images failed", "needed: uint8 images [B, C, H, W]"):
            images = generator.sample(self._task.to_target(few), torch.arange(len(few)), self.seed)
        return content_key(tensor_key(images))

    def _use(self, generator: GeneratorSource) -> None:
        self._generator, self._ratio, self.synthesis = generator, None, None  # because these depend on the generator

    def _sampler(self) -> Sampler:
        if self._generator is None:
            return self.train_generator()
        return self._generator.open(self.device)

    @plain_torch()
    def train_density_ratio(self, **settings: Any) -> RatioNetwork:
        """Train h(x, y) on real images and fakes at their labels. settings: those of RatioSettings."""
        chosen = from_tree(RatioSettings, settings, where="train_density_ratio")
        if not isinstance(chosen.features, TeacherFeatures):
            raise UserError(
                f"features = {chosen.features.kind} is possible in a recipe only; allowed: the features of the "
                "teacher, or of Distiller(features_of=a module)"
            )
        self._sampler()
        assert self._generator is not None
        features = self._features if chosen.vicinity_gaps is None else self.extractor
        self._ratio = self.store.call(
            stages.train_density_ratio,
            train=self.data,
            val=self.unseen,
            task=self._task,
            generator=self._generator,
            extractor=dataclasses.replace(features, jury=(), votes="first"),
            settings=chosen.fit,
            seed=self.seed,
        )
        self.synthesis = None  # because it depends on the ratio
        return StoredRatio(self._ratio).open(self.device)

    @property
    def _features(self) -> Extractor:
        """For features alone: without teacher outputs, if another network gives the features."""
        network = self.extractor.features
        return Extractor(self.extractor.teacher) if network is None else Extractor(None, network)

    @property
    def ratio_check(self) -> dict[str, Any] | None:
        """The results of the checks of the density ratio on ``held_out``; None where it was not checked."""
        return None if self._ratio is None or "passed" not in self._ratio.summary else self._ratio.summary

    @plain_torch()
    def synthesize(self, images: int = 10_000, **settings: Any) -> ImageSet:
        """Generate, subsample, filter and relabel images. settings: those of SynthesisSettings.

        ``self.synthesis`` then holds the counts of generated, accepted and kept images.
        """
        chosen = from_tree(SynthesisSettings, {"images": images, **settings}, where="synthesize")
        adjust.check_filter(chosen, self._task)
        replace, sampler = adjust.replacement(chosen, self._task), self._sampler()
        subsampling, ratio = chosen.subsampling, None
        if not isinstance(subsampling, NoSubsampling):
            if self._ratio is None:
                self.train_density_ratio()
            subsampling, self.fell_back = checks.fall_back(subsampling, self.ratio_check)
            if not isinstance(subsampling, NoSubsampling) and self._ratio is not None:
                ratio = StoredRatio(self._ratio)
        else:
            self.fell_back = []
        assert self._generator is not None
        source = ProposalSource(
            self._generator, self.extractor, ratio, self._task, self.seed, chosen.batch_size, chosen.max_draws
        )
        space = label_space(self._task, self._task.to_target(self.data.labels))
        self.synthesis = process(
            self.store.titled("synthesis"),
            source,
            space.plan(chosen, sampler.held),
            chosen,
            subsampling,
            features=self._features,
            keep_probabilities=replace == "soft",
        )
        self._fakes = StoredFakes(self.synthesis, replace)
        return self.named(self._fakes.open())

    @plain_torch()
    def distill(
        self,
        student: nn.Module,
        method: str = "supervised",
        real_share: float | None = None,
        *,
        generated: bool = True,
        unlabelled: npt.ArrayLike | Tensor | None = None,
        **settings: Any,
    ) -> nn.Module:
        """Train the student in place on real images and processed fakes, and return it.

        generated: False: on real images alone, as a control or for plain distillation. unlabelled: further real images
        of the same shape, which the teacher labels. method: "supervised" (cGAN-KD: the knowledge is in the images),
        "kd" (teacher outputs as well), or any other; UserError, before training, where it does not suit the networks.
        settings: those of FitSettings, and of StudentSettings temperature, label_weight, teacher_weight and
        method_settings, as in ``{"crd": {"weight": 0.8}}``.
        """
        if not isinstance(method, str):
            raise UserError(f"method is {method!r}; needed: a name, such as 'supervised' or 'kd'")
        numbers = {name: settings.pop(name) for name in METHOD_NUMBERS & set(settings)}
        own = from_tree(StudentSettings, {"real_share": real_share, **numbers}, where="distill")
        chosen = from_tree(FitSettings, settings, where="distill")
        methods = MethodStack.of(as_method(method), self._task, own)
        predictions = self._check_student(student, chosen)
        rehearse(
            student,
            self.teachers.open(self._task, self.device),
            methods.create(self._task),
            self.data,
            chosen.augment,
            self.device,
        )
        if generated and self.synthesis is None:
            self.synthesize()
        further: list[ImageSource] = [] if unlabelled is None else [self._unlabelled(unlabelled, methods)]
        further += [self._fakes] if generated else []
        artifact = self.store.titled(f"distil by {method}").call(
            stages.train_module,
            # a copy, because an interrupted training resumes from these weights
            student=ModuleNetwork(fresh_copy(student), seen=predictions),
            methods=methods,
            teachers=self.teachers if methods.numbers else None,
            images=TrainingImages(self.data, together(further), own.real_share if further else None),
            fit=chosen,
            task=self._task,
            seed=self.seed,
        )
        student.load_state_dict(artifact.tensors(WEIGHTS))
        return inference.place(student, self.device).eval()

    def _unlabelled(self, given: npt.ArrayLike | Tensor, methods: MethodStack) -> ImageSource:
        """The images, with the teacher's labels if the methods read any. UserError for images of another shape."""
        images, teacher = unlabelled_images(given, self.data.images), self.teachers.members[0]
        if not methods.create(self._task).reads_labels:
            return Unanswered(images, self.data.labels[:1])
        store = self.store.titled("labels of unlabelled images")
        return PseudoLabelled(images, store.call(stages.pseudo_label, images=images, teacher=teacher, task=self._task))

    def _check_student(self, student: nn.Module, fit: FitSettings) -> Tensor:
        """The student's predictions for a few images; it is also tried in training mode. UserError where it fails."""
        who, outputs = "the student", self._task.num_outputs
        if not isinstance(student, nn.Module):
            raise UserError(f"{who} is {student!r}; needed: a torch.nn.Module")
        images = inference.to_input(self.few.images[:], trial.device(student))
        predictions = trial.check_answers(who, student, images, outputs)
        trial.check_finite(who, predictions)
        check_unchanged(resolve(AUTO, predictions, self.few.labels, self._task, who, "outputs", trained=False), who)
        trial.check_learns(who, student, images[: min(2, fit.batch_size)], outputs)
        return predictions

    @plain_torch()
    def score(self, network: nn.Module, images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor) -> float:
        """Accuracy in %, or the mean absolute error in the label's unit. images: not those of the training."""
        unseen = self._unseen(images, labels)
        trial.check_predictor("the network", network, unseen.few(2).images[:], self._task.num_outputs, self.device)
        return scored(Work(self.device, self.progress), network, unseen, self._task).total
