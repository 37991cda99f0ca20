"""The quality of the generated images: chooses the images, computes each network's outputs once, then all scores.

The test split is not used. Fakes are compared with one random half of the pool (all training images, also the
owner's). The other half is scored in place of fakes, as a reference. Raw fakes are generated at the labels of that
other half, and processed fakes are drawn to its label frequencies. So label frequencies do not matter, and all sets
have nearly equal sizes, on which the Fréchet distance depends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.config.settings import GeneratorMetricsSettings
from cgankd.core import rng
from cgankd.core.blockwise import blockwise
from cgankd.core.groups import in_groups
from cgankd.core.mapped_rows import Images
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import Sampler
from cgankd.metrics import bound, generator, memorisation
from cgankd.metrics.distances import ROWS, nearest
from cgankd.metrics.generator import Observed
from cgankd.nets.feature_extractor import FeatureExtractor
from cgankd.nets.inference import Predictor, images_at_once, outputs
from cgankd.tasks import Task
from cgankd.teachers.black_box import BlackBox

TEACHER = "teacher"
NAMES = {TEACHER: "the teacher's features", "nokd": "the NOKD student's features"}
PAIRS = 12  # of a fake and its nearest training image, for the report


@dataclasses.dataclass(frozen=True)
class RealImages:
    """What fakes are compared with: the owner's images, the pool that contains them, and the validation split.

    unused: the validation images by which nothing was chosen, for the error bound; None: there are none.
    """

    train: ImageSet
    pool: ImageSet
    val: ImageSet
    unused: ImageSet | None
    task: Task


@dataclasses.dataclass(frozen=True)
class Processed:
    """The fakes after M1 and M2, as the student sees them.

    images.labels: the labels given to the generator. labels: those of the student, which are the teacher's predictions
    where labels were replaced. real_share: of a training batch; None where every image counts the same.
    """

    images: ImageSet
    labels: Tensor
    replaced: bool
    real_share: float | None


def measure_quality(
    work: Work,
    real: RealImages,
    sampler: Sampler,
    processed: Processed,
    networks: Mapping[str, nn.Module],
    settings: GeneratorMetricsSettings,
    *,
    seed: int,
    teacher: Predictor | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All numbers as JSON, and pairs of images for the report.

    networks: by name, those whose penultimate layers are the feature spaces. Copies are searched in the features of
    ``teacher``, or of the first network if there is none. teacher: a teacher that is no network and gives outputs only.
    """
    with _Extractors(work, networks, teacher) as extractors:
        return _measure(work, real, sampler, processed, extractors, settings, seed)


def _measure(
    work: Work,
    real: RealImages,
    sampler: Sampler,
    processed: Processed,
    extractors: _Extractors,
    settings: GeneratorMetricsSettings,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    task, space = real.task, extractors.space
    half = min(settings.images, len(real.pool) // 2)
    order = rng.order(len(real.pool), seed, "metrics/reference")
    reference, stand_in = real.pool.take(order[:half]), real.pool.take(order[half : 2 * half])
    held_out = real.val.take(rng.order(len(real.val), seed, "metrics/held out")[: settings.images])
    raw = _generate(work, sampler, stand_in.labels, task, rng.key(seed, "metrics/raw"))
    rows = _matching(processed.labels, stand_in.labels, task, seed)
    kept = processed.images.take(rows)
    observed = {
        "raw": extractors.observe("raw", raw),
        "processed": extractors.observe("processed", kept, processed.labels[rows]),
        "real": extractors.observe("real", stand_in),
    }
    unseen = extractors.observe("held out", held_out)
    scores = generator.score(extractors.observe("reference", reference), observed, unseen, task, settings, seed)
    features = {name: images.features[space] for name, images in observed.items()}
    known = extractors.features("training", real.train.images)
    copies, pairs = _copies(work, {"raw": raw, "processed": kept}, real.train, {
        "pixels": ({"raw": raw.images, "processed": kept.images}, real.train.images, held_out.images),
        space: (features, known, unseen.features[space]),
    })  # fmt: skip
    terms = _bound(processed, real.unused, unseen, extractors, task, len(real.train), seed)
    summary = {
        **scores,
        "reference": f"{half:,} random images of the pool (all training images); none of the test split",
        "memorisation": copies,
        "bound": {"terms": terms, "at_least": bound.at_least(terms), "confidence": 1.0 - bound.DELTA,
                  "loss": task.bounded_loss_name},
    }  # fmt: skip
    return summary, pairs


class _Extractors:
    """The networks whose features are compared, and the source of the teacher's outputs."""

    def __init__(self, work: Work, networks: Mapping[str, nn.Module], teacher: Predictor | None) -> None:
        self._of = {name: FeatureExtractor(network, work.fabric) for name, network in networks.items()}
        self._teacher, self._work = teacher, work
        self.space = TEACHER if TEACHER in networks else next(iter(networks))

    def __enter__(self) -> _Extractors:
        return self

    def __exit__(self, *_: object) -> None:
        for extractor in self._of.values():
            extractor.close()

    def observe(self, which: str, images: ImageSet, labels: Tensor | None = None) -> Observed:
        """which: the name of the images. labels: for the label windows; None: those of the images."""
        results = {name: self._extract(which, name, images.images) for name in self._of}
        features = {name: result[1] for name, result in results.items()}
        outputs = results[TEACHER][0] if TEACHER in results else self._ask(which, images.images)
        return Observed(images.labels if labels is None else labels, images.labels, outputs, features)

    def features(self, which: str, images: Images) -> Tensor:
        """The features in ``space`` alone, float32 [N, F]. which: the name of the images."""
        return self._extract(which, self.space, images)[1]

    def _ask(self, which: str, images: Images) -> Tensor | None:
        if self._teacher is None or not len(images):
            return None
        if isinstance(self._teacher, BlackBox) and not self._teacher.knows(images):
            return None
        return outputs(self._work, self._teacher, images, f"{which} images: teacher outputs")

    def _extract(self, which: str, name: str, images: Images) -> tuple[Tensor, Tensor]:
        extractor = self._of[name]

        def compute(rows: Tensor) -> dict[str, Tensor]:
            return dict(zip(("outputs", "features"), extractor(images[rows]), strict=True))

        if len(images):
            table = blockwise(self._work, f"{which} images: {name}", len(images), compute, images_at_once(images))
            return table["outputs"], table["features"]
        blank = torch.zeros(1, *images.shape[1:], dtype=torch.uint8)  # some networks reject an empty batch
        outputs, features = extractor(blank)
        return outputs[:0].cpu(), features[:0].cpu()


def _generate(work: Work, sampler: Sampler, labels: Tensor, task: Task, seed: int) -> ImageSet:
    """One fake at each label, neither subsampled nor filtered."""
    targets = task.to_target(labels)

    def compute(rows: Tensor) -> dict[str, Tensor]:
        return {"images": sampler.one_each(targets[rows], rows, seed)}

    return ImageSet(blockwise(work, "raw images", len(labels), compute)["images"], labels)


def _matching(labels: Tensor, wanted: Tensor, task: Task, seed: int) -> Tensor:
    """Random rows whose labels fall into the task's bins as often as those of ``wanted``, if there are enough."""
    order = rng.order(len(labels), seed, "metrics/processed")
    names, place = task.bins(labels[order])
    quota = torch.bincount(task.bins(wanted)[1], minlength=len(names))
    inside = in_groups(order, place, len(names))
    return torch.cat([rows[:count] for rows, count in zip(inside, quota.tolist(), strict=True)])


def _copies(
    work: Work,
    fakes: Mapping[str, ImageSet],
    train: ImageSet,
    spaces: Mapping[str, tuple[Mapping[str, Images], Images, Images]],
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Distances to training images, and the nearest pairs of processed and training images, in each space.

    spaces: by name, the vectors of the fakes by set, of the training images and of the held-out real images.
    """
    entries: list[dict[str, Any]] = []
    pairs: dict[str, Tensor] = {}
    for space, (vectors, known, new) in spaces.items():
        new_distance = None
        if len(new) >= memorisation.FEWEST:
            new_distance = _nearest(work, f"held out images: nearest in {space}", new, known)[0]
        for name, images in fakes.items():
            entry: dict[str, Any] = {
                "space": space, "set": name, "images": len(images), "train": len(known), "held_out": len(new),
                "share": None, "expected": None, "p_value": None, "median_ratio": None, "why": None,
            }  # fmt: skip
            entries.append(entry)
            if new_distance is None or len(images) < memorisation.FEWEST:
                few = "validation" if len(new) < memorisation.FEWEST else name
                entry["why"] = f"there are fewer than {memorisation.FEWEST} {few} images"
                continue
            distance, row = _nearest(work, f"{name} images: nearest in {space}", vectors[name], known)
            near = memorisation.nearness(distance, row, new_distance)
            entry["median_ratio"] = near.median_ratio
            if near.cutoff > 0:
                entry |= {"share": near.share, "expected": near.expected, "p_value": near.p_value}
            else:
                entry["why"] = "validation images themselves repeat training images"
            if name == "processed":
                rows = memorisation.closest(near, PAIRS)
                pairs[f"{space}_fakes"], pairs[f"{space}_train"] = images.images[rows], train.images[near.row[rows]]
                pairs[f"{space}_distances"] = near.distance[rows] / max(near.typical, 1e-12)
    return entries, pairs


def _nearest(work: Work, name: str, vectors: Images, known: Images) -> tuple[Tensor, Tensor]:
    """The distance to the nearest of ``known``, float32 [N], and its row, int64 [N]."""

    def compute(rows: Tensor) -> dict[str, Tensor]:
        distance, row = nearest(vectors[rows], known)
        return {"distance": distance.squeeze(1), "row": row.squeeze(1)}

    table = blockwise(work, name, len(vectors), compute, ROWS)
    return table["distance"], table["row"]


def _bound(
    processed: Processed,
    unused: ImageSet | None,
    held_out: Observed,
    extractors: _Extractors,
    task: Task,
    real_images: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The terms of the error bound. The fakes are as the student sees them, with their own label frequencies."""
    discrepancy = None
    if unused is not None:
        real = unused.take(rng.order(len(unused), seed, "metrics/unused")[: bound.MOST])
        fake = processed.images.take(rng.order(len(processed.images), seed, "metrics/two-sample")[: len(real)])
        if min(len(real), len(fake)) >= bound.FEWEST:
            discrepancy = bound.two_sample(
                extractors.features("unused", real.images),
                extractors.features("two-sample", fake.images),
                seed,
                NAMES[extractors.space],
            )
    return bound.terms(
        task,
        real_images=real_images,
        processed_images=max(1, len(processed.images)),
        real_share=processed.real_share,
        replaced=processed.replaced,
        discrepancy=discrepancy,
        chosen=unused is None,
        teacher_loss=None
        if held_out.outputs is None
        else task.bounded_loss(held_out.outputs, task.to_target(held_out.labels)),
    )
