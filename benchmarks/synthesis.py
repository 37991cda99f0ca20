"""What the claims about synthesis rest on: its time against its floor and against a loop over labels, and its draws.

Prints ``NAME ratio=R goal=G`` as ``speed.py`` does.
"""

from __future__ import annotations

import dataclasses

import torch
from speed import line, seconds
from torch import Tensor

from cgankd.config.settings import (
    DataSettings,
    EvenLabels,
    GanSettings,
    MaximumRatio,
    QuantileRatio,
    RatioFitSettings,
    SynthesisSettings,
)
from cgankd.core.runtime import Fabric, OneDevice, make_fabric
from cgankd.core.store import Work
from cgankd.data import sources
from cgankd.gan.generator import GanSampler, new_networks
from cgankd.labels import LabelPlan, label_embedding, label_space, ratio_embedding
from cgankd.nets import inference, zoo
from cgankd.nets.feature_extractor import FeatureExtractor
from cgankd.synthesis import rejection
from cgankd.synthesis.density_ratio import Pairs, RatioNetwork, train_ratio
from cgankd.synthesis.proposals import Proposals
from cgankd.synthesis.rejection import Rule
from cgankd.synthesis.synthesize import Synthesis, draw_burn_in, synthesize
from cgankd.tasks import Classification

BURN_IN = 500  # fakes for the first M: of a label in the loop over labels (paper, steering), of a pool of labels here


@dataclasses.dataclass(frozen=True)
class Road:
    """Random networks between label and accepted image, because only times count. plan: what is to be made."""

    proposals: Proposals
    sampler: GanSampler
    ratio: RatioNetwork
    width: int  # of the features
    plan: LabelPlan

    @classmethod
    def of(cls, fabric: Fabric, source: str, channels: int, teacher: str, settings: SynthesisSettings) -> Road:
        """For a built-in data set."""
        splits = sources.load(DataSettings(source=source, train_size=400))
        task, gan = splits.task, GanSettings(channels=channels)
        embedding = label_embedding(task, None, gan.label_dim)
        sampler = GanSampler(new_networks(gan, embedding, 1, (32, 32))[0], gan.latent, fabric)
        extractor = FeatureExtractor(
            inference.place(zoo.create(teacher, 1, task.num_outputs, (32, 32)), fabric).eval(), fabric
        )
        width = extractor(splits.train.images[:2])[1].shape[1]
        ratio = RatioNetwork(width, ratio_embedding(task, RatioNetwork.LABEL_DIM), (512, 256, 128), 0.5)
        ratio = ratio.to(fabric.device).eval()
        plan = label_space(task, splits.train.labels).plan(settings)
        proposals = Proposals(sampler, extractor, ratio, task, 0, settings.batch_size, settings.max_draws)
        return cls(proposals, sampler, ratio, width, plan)

    def stream(self, fabric: Fabric, burn_in: int) -> Synthesis:
        """All of the plan, as a run makes it. burn_in: fakes of each pool of labels."""
        first = draw_burn_in(Work(fabric), self.proposals, self.plan.with_total_per(self.plan.pool, burn_in))
        return synthesize(Work(fabric), self.proposals, self.plan, rule=Rule.of(MaximumRatio()), burn_in=first)


def against_the_floor(fabric: Fabric) -> None:
    """The streaming loop against the forward passes of generator, teacher and ratio network that it must do."""
    road = Road.of(fabric, "fashion", 24, "cnn48_grid", SynthesisSettings(images=2000, filter=None))
    generated = road.stream(fabric, 100).summary["generated"] + 100 * (int(road.plan.pool.max()) + 1)
    z = torch.randn(500, road.sampler.latent, device=fabric.device)
    targets = torch.randint(10, (500,), device=fabric.device)

    @torch.no_grad()
    def floor() -> None:
        for _ in range(generated // 500):
            road.proposals.extractor.teacher(road.sampler.network(z, targets))  # at float32, as all that is stored
            road.ratio(torch.zeros(500, road.width, device=fabric.device), targets)

    line("synthesis", 0.90, floor, lambda: road.stream(fabric, 100), note=f" ({generated} images)")


def against_labels(fabric: Fabric) -> None:
    """2,000 scalar labels with 50 images each, against the usual loop: one label at a time, each with its burn-in.

    The loop's labels do not depend on each other, so 10 of them are timed, and count 200 times.
    """
    labels, each, timed = 2000, 50, 10
    settings = SynthesisSettings(images=labels * each, labels=EvenLabels(count=labels), filter=None)
    road = Road.of(fabric, "rotated-fashion", 4, "cnn8", settings)
    torch_rng = torch.Generator().manual_seed(0)

    def draw(target: Tensor, count: int) -> tuple[Tensor, Tensor]:
        targets = target.expand(count)
        images = road.sampler.sample(targets, torch.randint(2**40, (count,), generator=torch_rng), 0)
        return images, road.ratio(road.proposals.extractor(images)[1], targets)

    @torch.no_grad()
    def loop() -> None:
        for target in road.plan.targets[:: labels // timed]:
            largest, kept = float(draw(target, BURN_IN)[1].max()), 0
            while kept < each:
                for h in draw(target, each)[1].tolist():
                    largest = max(largest, h)
                    kept += float(torch.rand(1, generator=torch_rng)) * largest < h

    pairs = [(seconds(lambda: road.stream(fabric, BURN_IN)), seconds(loop) * labels / timed) for _ in range(2)]
    print(f"synthesis_against_labels ratio={min(b / a for a, b in pairs):.2f} goal=5", flush=True)


def draws() -> None:
    """Draws for each kept image on known densities of ten classes, by the rising maximum and by quantiles.

    h is learnt from 1,000 real images. distance: of the kept fakes to real ones, the mean distance between sorted
    projections on 64 directions (sliced Wasserstein distance).
    """
    classes, size, differing, each = 10, 16, 4, 20_000
    torch_rng = torch.Generator().manual_seed(0)
    spread = torch.ones(size).index_fill(0, torch.arange(differing), 0.7)  # real images vary less in these
    shift = torch.zeros(size).index_fill(0, torch.arange(differing), 0.3)  # and fakes are shifted there
    centres = 3.0 * torch.randn(classes, size, generator=torch_rng)

    def real(label: Tensor) -> Tensor:
        return centres[label] + spread * torch.randn(len(label), size, generator=torch_rng)

    def fake(label: Tensor) -> Tensor:
        return centres[label] + shift + torch.randn(len(label), size, generator=torch_rng)

    def pairs(count: int) -> Pairs:
        label = torch.randint(classes, (count,), generator=torch_rng)
        fakes = fake(label.repeat_interleave(10)).view(count, 10, size)
        return Pairs(real(label), label, fakes, torch.ones(count, 10, dtype=torch.bool))

    task = Classification(tuple(map(str, range(classes))))
    embedding = ratio_embedding(task, RatioNetwork.LABEL_DIM)
    work = Work(OneDevice())
    network, _ = train_ratio(work, pairs(1000), embedding, RatioFitSettings(), seed=0, held_out=pairs(200))
    label = torch.arange(classes).repeat_interleave(each)
    fakes, target, uniform = fake(label), real(label), torch.rand(classes, each, generator=torch_rng)
    with torch.no_grad():
        h = network(fakes, label).view(classes, each)
    directions = torch.randn(differing, 64, generator=torch_rng)
    directions /= directions.norm(dim=0)
    target = ((target - centres[label])[:, :differing] @ directions)[torch.randperm(len(label), generator=torch_rng)]

    def tried(settings: MaximumRatio | QuantileRatio) -> tuple[float, float]:
        rule = Rule.of(settings)
        pool = torch.arange(classes).repeat_interleave(BURN_IN)
        maxima = rejection.first_maxima(h[:, :BURN_IN].flatten(), pool, classes, rule)
        kept = rejection.accept(h[:, BURN_IN:], maxima, uniform[:, BURN_IN:], rule.rising)[0]
        place = torch.nn.functional.pad(kept, (BURN_IN, 0)).flatten()
        values = (fakes - centres[label])[place][:, :differing] @ directions
        values = values[torch.randperm(len(values), generator=torch_rng)[:10_000]]
        distance = float((values.sort(dim=0).values - target[:10_000].sort(dim=0).values).abs().mean())
        return kept.numel() / int(kept.sum()), distance

    rising, there = tried(MaximumRatio())
    for q in (0.99, 0.95, 0.9):
        needed, distance = tried(QuantileRatio(q=q))
        note = f"({needed:.2f} draws, distance {distance:.3f}; rising maximum {rising:.2f}, {there:.3f})"
        print(f"draws_quantile_{q:g} ratio={rising / needed:.2f} goal=3 {note}", flush=True)


if __name__ == "__main__":
    shared = make_fabric()
    against_the_floor(shared)
    against_labels(shared)
    draws()
