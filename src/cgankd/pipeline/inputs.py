"""Arguments of stages besides settings and images: networks, teachers and generators, opened only when needed.

Each can be hashed by the store (core/hashing.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from torch import Tensor, nn

from cgankd.core.runtime import Fabric
from cgankd.core.store import Artifact
from cgankd.data.imageset import ImageSet, UnlabelledImages
from cgankd.distill import MethodStack
from cgankd.gan.generator import GeneratorSource
from cgankd.nets import inference
from cgankd.nets.build import Architecture, NetworkSource, StoredNetwork
from cgankd.nets.feature_extractor import FeatureExtractor
from cgankd.nets.pretrained import PretrainedWeights
from cgankd.synthesis.density_ratio import StoredRatio
from cgankd.synthesis.proposals import Proposals
from cgankd.tasks import Task
from cgankd.teachers.jury import as_one


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """The task of a run, and the images that all its networks are scored on."""

    task: Task
    val: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True)
class Student:
    """A network to be trained. start: its initial weights; None: random ones."""

    network: Architecture
    methods: MethodStack
    start: PretrainedWeights | StoredNetwork | None = None


@dataclasses.dataclass(frozen=True)
class Teachers:
    """The teachers whose outputs distillation matches. votes: first (the first teacher alone), mean or confidence."""

    members: tuple[NetworkSource, ...]
    votes: str = "first"

    def open(self, task: Task, fabric: Fabric) -> inference.Predictor | None:
        """All teachers as one predictor."""
        return as_one([member.open(fabric) for member in self.members], self.votes, task, fabric)


@dataclasses.dataclass(frozen=True)
class Extractor:
    """The networks that read images: teachers for outputs, and one network whose penultimate layer gives features.

    teacher: None where no outputs are needed. features: None where the features are those of the teacher.
    """

    teacher: NetworkSource | None
    features: NetworkSource | None = None
    jury: tuple[NetworkSource, ...] = ()
    votes: str = "first"

    def open(self, fabric: Fabric) -> FeatureExtractor:
        """The caller must close it."""
        features = None if self.features is None else self.features.open(fabric)
        teacher = features if self.teacher is None else self.teacher.open(fabric)
        assert teacher is not None
        assert features is None or isinstance(features, nn.Module)
        return FeatureExtractor(
            teacher,
            fabric,
            features,
            [juror.open(fabric) for juror in self.jury],
            by_confidence=self.votes == "confidence",
        )


@dataclasses.dataclass(frozen=True)
class ProposalSource:
    """The source of proposals for burn-in, calibration and synthesis. ratio: None where all proposals are accepted."""

    generator: GeneratorSource
    extractor: Extractor
    ratio: StoredRatio | None
    task: Task
    seed: int
    batch_size: int
    max_draws: int

    @contextlib.contextmanager
    def open(self, fabric: Fabric) -> Iterator[Proposals]:
        """Ready to draw, by all processes of a run; only the first of them enters the block."""
        with self.extractor.open(fabric) as extractor:
            ratio = None if self.ratio is None else self.ratio.open(fabric)
            generator = self.generator.open(fabric)
            own = Proposals(generator, extractor, ratio, self.task, self.seed, self.batch_size, self.max_draws)
            with own.shared() as proposals:
                yield proposals


@dataclasses.dataclass(frozen=True)
class PseudoLabelled:
    """Real images with labels predicted by :func:`pseudo_label`."""

    images: UnlabelledImages
    artifact: Artifact

    @property
    def content_key(self) -> str:
        return self.artifact.content_key

    def open(self) -> ImageSet:
        """The images, with labels in the user's unit."""
        return ImageSet(self.images.images, self.artifact.tensors("labels")["labels"])


@dataclasses.dataclass(frozen=True)
class Unanswered:
    """Real images for a loss that reads no label. label: [1], any, which all have."""

    images: UnlabelledImages
    label: Tensor

    @property
    def content_key(self) -> str:
        return self.images.content_key

    def open(self) -> ImageSet:
        """The images with the label."""
        return ImageSet(self.images.images, self.label.repeat(len(self.images)))
