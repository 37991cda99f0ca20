"""What stages take, besides settings and images: networks, teachers and generators that they open when needed.

Each of these names its content, so that the store can hash it (core/hashing.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from lightning_fabric import Fabric
from torch import nn

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
    """What all networks of a run share.

    train: the owner's images, by which inputs are normalised. val, test: the images that networks are scored on.
    """

    task: Task
    train: ImageSet
    val: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True)
class Student:
    """A network to be trained. start: the weights it starts from; None: random ones."""

    network: Architecture
    methods: MethodStack
    start: PretrainedWeights | StoredNetwork | None = None


@dataclasses.dataclass(frozen=True)
class Teachers:
    """Whose outputs distillation matches: those of the first, or of all by their votes."""

    members: tuple[NetworkSource, ...]
    votes: str = "first"

    def open(self, task: Task, fabric: Fabric) -> inference.Predictor | None:
        """As one predictor."""
        return as_one([member.open(fabric) for member in self.members], self.votes, task, fabric)


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Which networks see images: teachers for their outputs, and one whose penultimate layer is the feature.

    teacher: None where outputs count for nothing. features: None where they are the teacher's own.
    """

    teacher: NetworkSource | None
    features: NetworkSource | None = None
    jury: tuple[NetworkSource, ...] = ()
    votes: str = "first"

    def open(self, fabric: Fabric) -> FeatureExtractor:
        """To be closed by whoever opens it."""
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
    """What burn-in, calibration and synthesis draw from. ratio: None where all proposals are accepted."""

    generator: GeneratorSource
    extractor: Extractor
    ratio: StoredRatio | None
    task: Task
    seed: int
    batch_size: int
    max_draws: int

    @contextlib.contextmanager
    def open(self, fabric: Fabric) -> Iterator[Proposals]:
        """Ready to draw."""
        with self.extractor.open(fabric) as extractor:
            ratio = None if self.ratio is None else self.ratio.open(fabric)
            generator = self.generator.open(fabric)
            yield Proposals(generator, extractor, ratio, self.task, self.seed, self.batch_size, self.max_draws)


@dataclasses.dataclass(frozen=True)
class PseudoLabelled:
    """Real images with the labels that :func:`pseudo_label` gave them."""

    images: UnlabelledImages
    artifact: Artifact

    @property
    def content_key(self) -> str:
        return self.artifact.content_key

    def open(self) -> ImageSet:
        """Labels in the user's own unit."""
        return ImageSet(self.images.images, self.artifact.tensors("labels")["labels"])
