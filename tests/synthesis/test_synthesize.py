"""The streaming loop against a plain loop over proposals, one at a time.

The generator writes everything that is decided about a proposal into its pixels, so that the loop below can read
it from there: its identity, what the teacher will say, its ratio. The teacher's sums have one term that is not 0,
so that equal means equal.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.config.settings import NoSubsampling, RatioBudget, ScalarLabelSettings, SynthesisSettings
from cgankd.core import rng
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import UserError
from cgankd.core.store import Artifact, Store, Work
from cgankd.gan.adapters import SEEDS, CallableSampler
from cgankd.gan.generator import Sampler
from cgankd.labels import ClassLabels, LabelPlan, ScalarLabels
from cgankd.nets.feature_extractor import FeatureExtractor
from cgankd.pipeline.inputs import Extractor, ProposalSource
from cgankd.pipeline.processing import process
from cgankd.synthesis.proposals import Proposals
from cgankd.synthesis.rejection import Rule
from cgankd.synthesis.store import StoredFakes
from cgankd.synthesis.synthesize import FilterRule, Synthesis, draw_burn_in, draw_errors, synthesize
from cgankd.tasks import Classification, Regression, Task
from works import stopped_at_every_save

CLASSES = Classification(("a", "b", "c"))
DEGREES = Regression(low=0.0, high=90.0, unit="degrees")
RATIO, FIRST_OUTPUT, INDEX = 10, 20, 30  # where in an image a number stands
PLAIN = {"subsampling": {"burn_in": 15}, "filter": {"calibration": 40}, "max_draws": 50}
SIMPLE: dict[str, Any] = {"subsampling": {"kind": "none"}, "filter": None}


def pixels(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
    """uint8 [B, 1, 16, 16]: proposal ``index`` of ``target``."""
    label = targets if not targets.is_floating_point() else targets.float().view(torch.int32)
    values = torch.zeros(len(targets), 256)

    def draw(name: str) -> Tensor:
        return rng.uniform(seed, name, label, indices).float()

    values[:, RATIO] = (256 * draw("ratio") ** 2).floor()
    if targets.is_floating_point():
        values[:, FIRST_OUTPUT] = (255 * targets + 120 * (draw("teacher") - 0.5)).round().clamp(0, 255)
    else:
        for number in range(3):
            values[:, FIRST_OUTPUT + number] = (128 * draw(f"teacher{number}")).floor() + 60 * (targets == number)
    values[:, INDEX], values[:, INDEX + 1] = indices // 256, indices % 256
    return values.to(torch.uint8).view(-1, 1, 16, 16)


class Teacher(nn.Module):
    """Reads its outputs from the pixels; the penultimate layer is the image itself."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(256, outputs, bias=False)
        with torch.no_grad():
            self.fc.weight.zero_()
            for number in range(outputs):
                self.fc.weight[number, FIRST_OUTPUT + number] = 1.0 if outputs == 1 else 8.0

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images.flatten(1))


class Ratio(nn.Module):
    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        return 2.0 * features[:, RATIO]


def plan_of(task: Task, images: int, **more: Any) -> LabelPlan:
    settings = SynthesisSettings(images=images, labels={"count": 6}, **more)
    if task.continuous:
        return ScalarLabels(torch.rand(50), ScalarLabelSettings()).plan(settings)
    return ClassLabels(3, torch.arange(3)).plan(settings)


def processed(
    generator: Sampler,
    extractor: FeatureExtractor,
    ratio: nn.Module | None,
    plan: LabelPlan,
    task: Task,
    settings: SynthesisSettings,
    *,
    seed: int,
    work: Work | None = None,
) -> Synthesis:
    """Burn-in, calibration and synthesis in the order of pipeline/processing.py, without a store."""
    work = work or Work(extractor.fabric)
    proposals = Proposals(generator, extractor, ratio, task, seed, settings.batch_size, settings.max_draws)
    subsampling = NoSubsampling() if ratio is None else settings.subsampling
    rule, burn_in, acceptance, filter_rule = None, None, None, None
    if not isinstance(subsampling, NoSubsampling):
        rule = Rule.of(subsampling)
        burn_in = draw_burn_in(work.within("burn-in"), proposals, plan.with_total_per(plan.pool, subsampling.burn_in))
        acceptance = burn_in.acceptance(plan, rule)
    if settings.filter is not None:
        calibration = plan.for_calibration(settings.filter.calibration)
        rho = settings.filter.rho or task.filter_quantile
        filter_rule = FilterRule(*draw_errors(work.within("errors"), proposals, calibration, acceptance), rho)
    return synthesize(
        work,
        proposals,
        plan,
        rule=rule,
        burn_in=burn_in,
        filter_rule=filter_rule,
        keep_probabilities=settings.replace == "soft",
    )


def run(
    task: Task,
    fabric: Fabric,
    plan: LabelPlan,
    *,
    ratio: bool = True,
    folder: Path | None = None,
    work: Work | None = None,
    seed: int = 3,
    **settings: Any,
) -> Synthesis:
    chosen = SynthesisSettings(images=int(plan.quota.sum()), **{**PLAIN, **settings})
    weigh, work = Ratio() if ratio else None, work or Work(fabric, folder=folder)
    with FeatureExtractor(Teacher(task.num_outputs), fabric) as extractor:
        return processed(CallableSampler(pixels), extractor, weigh, plan, task, chosen, seed=seed, work=work)


# --- the plain loop -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Proposal:
    image: Tensor
    prediction: float
    error: float
    ratio: float


def propose(task: Task, target: Tensor, index: int, stream: str, seed: int) -> Proposal:
    return dataclasses.replace(_proposed(task, target.item(), target.dtype, index, stream, seed))


@functools.cache
def _proposed(task: Task, label: float, dtype: torch.dtype, index: int, stream: str, seed: int) -> Proposal:
    """Made once for all tests, because each of a thousand takes a millisecond."""
    target = torch.tensor(label, dtype=dtype)
    image = pixels(target[None], torch.tensor([index]), rng.key(seed, stream) % SEEDS)
    value = image.flatten().float() / 255
    if task.continuous:
        outputs = value[FIRST_OUTPUT : FIRST_OUTPUT + 1][None]
    else:
        outputs = 8 * value[FIRST_OUTPUT : FIRST_OUTPUT + 3][None]
    return Proposal(
        image[0], float(task.predict(outputs)), float(task.error(outputs, target[None])), float(2 * value[RATIO])
    )


def walk(
    task: Task, target: Tensor, quota: int, bound: int, largest: float | None, stream: str, seed: int,
    alpha: float | None, rising: bool = True,
) -> tuple[list[Proposal], dict[str, int]]:  # fmt: skip
    """One label's proposals, one after the other: what is kept, and the counts."""
    kept: list[Proposal] = []
    counts = {"generated": 0, "accepted": 0}
    label = target if not target.is_floating_point() else target.float().view(1).view(torch.int32)[0]
    while len(kept) < quota and counts["generated"] < bound:
        index = counts["generated"]
        proposal = propose(task, target, index, stream, seed)
        counts["generated"] += 1
        if largest is None:
            proposal.ratio = 1.0
        else:
            if rising:
                largest = max(largest, proposal.ratio)
            uniform = float(rng.uniform(seed, stream + "/accept", label, torch.tensor(index)))
            if not uniform < proposal.ratio / largest:
                continue
        counts["accepted"] += 1
        if alpha is None or proposal.error < alpha:
            kept.append(proposal)
    return kept, counts


def budget_by_bisection(ratios: list[float], budget: float) -> float:
    """M at which the mean of min(1, h / M) is 1 / budget."""
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if np.minimum(1.0, np.array(ratios) / middle).mean() > 1 / budget else (low, middle)
    return low


def plain_loop(task: Task, plan: LabelPlan, seed: int = 3, ratio: bool = True, filtered: bool = True, **settings: Any):
    """(kept proposals per label, counts per label, errors of the calibration fakes per group)."""
    chosen = SynthesisSettings(images=1, **{**PLAIN, **settings})
    rule = chosen.subsampling
    largest: list[float | None] = [None] * len(plan.targets)
    if ratio:
        pools: dict[int, list[float]] = {}
        size = torch.bincount(plan.pool).tolist()
        for target, pool in zip(plan.targets, plan.pool.tolist(), strict=True):
            share = -(-rule.burn_in // size[pool])
            found = [propose(task, target, j, "burn-in", seed).ratio for j in range(share)]
            pools.setdefault(pool, []).extend(found)
        quantile = rule.q if rule.kind == "quantile" else 1.0
        largest = [
            budget_by_bisection(pools[pool], rule.draws)
            if rule.kind == "budget"
            else float(np.quantile(pools[pool], quantile))
            for pool in plan.pool.tolist()
        ]
    rising = rule.kind == "maximum"
    errors: dict[int, list[float]] = {}
    alpha: list[float | None] = [None] * len(plan.targets)
    if filtered:
        size = torch.bincount(plan.group).tolist()
        for target, group, bound in zip(plan.targets, plan.group.tolist(), largest, strict=True):
            share = -(-chosen.filter.calibration // size[group])
            found, _ = walk(task, target, share, share * chosen.max_draws, bound, "calibration", seed, None, rising)
            errors.setdefault(group, []).extend(proposal.error for proposal in found)
        rho = task.filter_quantile if chosen.filter.rho is None else chosen.filter.rho
        alpha = [float(np.quantile(errors[group], rho)) for group in plan.group.tolist()]
    walks = [
        walk(task, target, quota, quota * chosen.max_draws, bound, "proposal", seed, limit, rising)
        for target, quota, bound, limit in zip(plan.targets, plan.quota.tolist(), largest, alpha, strict=True)
    ]
    return [kept for kept, _ in walks], [counts for _, counts in walks], errors


def check(made: Synthesis, task: Task, plan: LabelPlan, kept: list[list[Proposal]], counts: list[dict]) -> None:
    flat = [proposal for proposals in kept for proposal in proposals]
    assert len(made.fakes) == len(flat)
    assert torch.equal(made.fakes.images, torch.stack([proposal.image for proposal in flat]))
    labels = task.from_target(plan.targets).repeat_interleave(torch.tensor([len(p) for p in kept]))
    assert torch.equal(made.fakes.labels, labels)
    for name in ("prediction", "error", "ratio"):
        column = [getattr(proposal, name) for proposal in flat]
        assert made.fakes.columns[name].tolist() == pytest.approx(column, rel=1e-6, abs=1e-6)
    summary = made.summary
    assert summary["requested"] == int(plan.quota.sum())
    assert summary["kept"] == len(flat)
    for name in ("generated", "accepted"):
        assert summary[name] == sum(count[name] for count in counts)
    assert summary["acceptance"] == pytest.approx(summary["accepted"] / summary["generated"])
    names, place = task.bins(task.from_target(plan.targets))
    assert [entry["label"] for entry in summary["per_label"]] == names
    for number, entry in enumerate(summary["per_label"]):
        inside = [row for row, bin_ in enumerate(place.tolist()) if bin_ == number]
        assert entry["requested"] == int(plan.quota[inside].sum())
        assert entry["kept"] == sum(len(kept[row]) for row in inside)
        for name in ("generated", "accepted"):
            assert entry[name] == sum(counts[row][name] for row in inside)
        draws = entry["generated"] / entry["kept"] if entry["kept"] else None
        assert entry["draws_per_image"] == (None if draws is None else pytest.approx(draws))
    for name in ("requested", "generated", "accepted", "kept"):
        assert sum(entry[name] for entry in summary["per_label"]) == summary[name]


# --- tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
@pytest.mark.parametrize(
    ("policy", "sizes"),
    [
        ({"kind": "maximum"}, (1, 7, 500)),
        ({"kind": "quantile", "q": 0.8}, (7, 500)),
        ({"kind": "budget", "draws": 2.5}, (7, 500)),
    ],
)
def test_kept_are_the_first_that_pass_whatever_the_batch_size(
    task: Task, policy: dict, sizes: tuple[int, ...], fabric: Fabric
) -> None:
    plan = plan_of(task, 31)
    chosen = {"subsampling": {**policy, "burn_in": 15}}
    kept, counts, errors = plain_loop(task, plan, **chosen)
    assert sum(count["accepted"] for count in counts) < 0.7 * sum(count["generated"] for count in counts)
    assert len([p for label in kept for p in label]) < sum(count["accepted"] for count in counts)
    for batch_size in sizes:
        made = run(task, fabric, plan, **chosen, batch_size=batch_size)
        check(made, task, plan, kept, counts)
        rho = task.filter_quantile
        expected = [np.quantile(errors[group], rho) for group in sorted(errors)]
        assert made.summary["thresholds"] == pytest.approx(expected, rel=1e-5)
        assert made.summary["filter_quantile"] == rho
        found = made.samples["calibration_errors"]
        for group, values in errors.items():
            assert sorted(found[made.samples["calibration_group"] == group].tolist()) == pytest.approx(sorted(values))


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
@pytest.mark.parametrize(("ratio", "filtered"), [(False, False), (True, False), (False, True)])
def test_each_part_alone(task: Task, ratio: bool, filtered: bool, fabric: Fabric) -> None:
    plan = plan_of(task, 20)
    kept, counts, _ = plain_loop(task, plan, ratio=ratio, filtered=filtered)
    made = run(task, fabric, plan, ratio=ratio, batch_size=13, **({} if filtered else {"filter": False}))
    check(made, task, plan, kept, counts)
    assert made.summary["kept"] == 20
    if not ratio:
        assert made.summary["acceptance"] == 1.0
        assert made.summary["effective_sample_share"] is None
    if not filtered:
        assert made.summary["thresholds"] is None
        assert made.summary["filter_quantile"] is None
    if not ratio and not filtered:
        assert made.summary["generated"] == 20


def test_labels_without_a_quota_get_no_image(fabric: Fabric) -> None:
    plan = plan_of(CLASSES, 3)
    plan = dataclasses.replace(plan, quota=torch.tensor([5, 0, 2]))
    kept, counts, _ = plain_loop(CLASSES, plan)
    made = run(CLASSES, fabric, plan)
    check(made, CLASSES, plan, kept, counts)
    assert torch.bincount(made.fakes.labels, minlength=3).tolist() == [5, 0, 2]


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
@pytest.mark.parametrize("draws", [1, 2])
def test_a_shortfall_is_reported_and_the_store_compacted(
    task: Task, draws: int, fabric: Fabric, tmp_path: Path
) -> None:
    plan = plan_of(task, 33)
    kept, counts, _ = plain_loop(task, plan, max_draws=draws)
    short = sum(map(len, kept))
    assert 0 < short < 33
    for batch_size in (5, 500):
        made = run(task, fabric, plan, max_draws=draws, folder=tmp_path, batch_size=batch_size)
        check(made, task, plan, kept, counts)
        assert (tmp_path / "images.u8").stat().st_size == short * 256
    assert made.summary["kept"] == short
    assert made.summary["requested"] == 33
    for entry in made.summary["per_label"]:
        assert entry["generated"] <= draws * entry["requested"]


@pytest.mark.parametrize("batch_size", [7, 500])
@pytest.mark.parametrize("task", [CLASSES, DEGREES])
def test_a_killed_synthesis_goes_on_bit_for_bit(task: Task, batch_size: int, fabric: Fabric, tmp_path: Path) -> None:
    """Burn-in, calibration and synthesis, the rising maxima and the filled slots among what must go on."""
    plan = plan_of(task, 20)

    def synthesis(work: Work) -> Synthesis:
        return run(task, fabric, plan, work=work, batch_size=batch_size, replace="soft", max_draws=400)

    whole = synthesis(Work(fabric))
    parts, calls = stopped_at_every_save(fabric, tmp_path, synthesis)
    assert calls > (20 if batch_size == 7 else 3)
    assert parts.summary == whole.summary
    assert torch.equal(parts.fakes.images, whole.fakes.images)
    assert torch.equal(parts.fakes.labels, whole.fakes.labels)
    assert parts.fakes.columns.keys() == whole.fakes.columns.keys()
    for name, column in whole.fakes.columns.items():
        assert torch.equal(parts.fakes.columns[name], column), name
    assert parts.samples.keys() == whole.samples.keys()
    for name, rows in whole.samples.items():
        assert torch.equal(parts.samples[name], rows), name


def test_on_disk_is_as_in_memory(fabric: Fabric, tmp_path: Path) -> None:
    plan = plan_of(DEGREES, 40)
    memory, disk = run(DEGREES, fabric, plan), run(DEGREES, fabric, plan, folder=tmp_path)
    assert torch.equal(memory.fakes.images, disk.fakes.images)
    assert torch.equal(memory.fakes.labels, disk.fakes.labels)
    assert memory.summary == disk.summary
    for name, column in memory.fakes.columns.items():
        assert torch.equal(column, disk.fakes.columns[name])


def test_what_is_kept_in_memory_does_not_grow_with_the_number_of_images(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def save(checkpoint: Checkpoint, *arguments: Any, tensors: Mapping[str, Tensor], **more: Any) -> None:
        saved.append(sum(tensor.nbytes for tensor in tensors.values()))

    monkeypatch.setattr(Checkpoint, "save", save)
    most = []
    for images in (1_000, 4_000):
        folder = tmp_path / str(images)
        folder.mkdir()
        saved.clear()
        work = Work(fabric, folder=folder, checkpoint_seconds=0.0)
        made = run(CLASSES, fabric, plan_of(CLASSES, images), work=work, replace="soft", ratio=False, **SIMPLE)
        assert len(made.fakes) == images
        most.append(max(saved))
        files = {path.name: path.stat().st_size // images for path in folder.glob("*.rows")}
        assert files == {
            "checkpoint-error.rows": 4, "checkpoint-ratio.rows": 4, "checkpoint-prediction.rows": 8,
            "checkpoint-probabilities.rows": 12,
        }  # fmt: skip
    assert most[1] == most[0]


@dataclasses.dataclass(frozen=True)
class Opened:
    """A network that a stage takes as it is."""

    content_key: str
    network: nn.Module

    def open(self, fabric: Fabric) -> nn.Module:
        return self.network


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
def test_in_a_store_as_without_and_burn_in_and_calibration_are_used_again(
    task: Task, fabric: Fabric, tmp_path: Path
) -> None:
    store = Store(tmp_path, fabric)
    source = ProposalSource(
        CallableSampler(pixels, content_key="pixels"), Extractor(Opened("teacher", Teacher(task.num_outputs))),
        Opened("ratio", Ratio()), task, seed=3, batch_size=500, max_draws=50,
    )  # fmt: skip

    def made(images: int, **changes: Any) -> tuple[LabelPlan, Artifact]:
        settings = SynthesisSettings(images=images, **{**PLAIN, **changes})
        plan = plan_of(task, images, filter=settings.filter)
        given = dataclasses.replace(source, ratio=None) if changes.get("subsampling") == "none" else source
        return plan, process(
            store, given, plan, settings, settings.subsampling, features=source.extractor, keep_probabilities=False
        )

    def stages() -> dict[str, int]:
        return collections.Counter(path.name.rpartition("-")[0] for path in (tmp_path / "artifacts").iterdir())

    (plan, few), (_, many) = made(31), made(62)
    expected, fakes = run(task, fabric, plan), StoredFakes(few).open()
    assert torch.equal(fakes.images, expected.fakes.images)
    assert torch.equal(fakes.labels, expected.fakes.labels)
    assert {"shape": [1, 16, 16], **expected.summary} == few.summary
    for name, column in {**expected.fakes.columns, **expected.samples}.items():
        assert torch.equal(few.tensors("samples")[name] if name in expected.samples else fakes.columns[name], column)
    larger = StoredFakes(many).open()
    for target, quota in zip(task.from_target(plan.targets), plan.quota.tolist(), strict=True):
        first = larger.images[larger.labels == target][:quota]  # those of a smaller M are the first of a larger one's
        assert torch.equal(fakes.images[fakes.labels == target], first)
    assert stages() == {"burn_in": 1, "calibrate_filter": 1, "make_images": 2}
    made(31, filter={"calibration": 40, "rho": 0.5})
    made(31, filter=False)
    assert stages() == {"burn_in": 1, "calibrate_filter": 1, "make_images": 4}
    made(31, subsampling="none")  # the filter's quantile is taken over subsampled fakes
    assert stages() == {"burn_in": 1, "calibrate_filter": 2, "make_images": 5}
    made(31, subsampling={"kind": "quantile", "burn_in": 15})
    made(31, filter={"calibration": 40, "by": "label" if task.continuous else "all"})  # other groups
    assert stages() == {"burn_in": 1, "calibrate_filter": 4, "make_images": 7}
    made(31, subsampling={"burn_in": 16})
    assert stages() == {"burn_in": 2, "calibrate_filter": 5, "make_images": 8}


def test_another_seed_gives_other_images(fabric: Fabric) -> None:
    plan = plan_of(CLASSES, 12)
    one, two = (run(CLASSES, fabric, plan, seed=seed).fakes.images for seed in (0, 1))
    assert not torch.equal(one, two)


def test_the_teachers_metric_on_generated_accepted_and_kept(fabric: Fabric) -> None:
    plan = plan_of(CLASSES, 30)
    made = run(CLASSES, fabric, plan, batch_size=9)
    kept, counts, _ = plain_loop(CLASSES, plan)
    right = [np.mean([p.prediction == label for p in proposals]) for label, proposals in enumerate(kept)]
    assert made.summary["teacher_metric"]["kept"] == pytest.approx(100 * np.mean(right))
    generated = [
        np.mean(
            [
                propose(CLASSES, torch.tensor(label), j, "proposal", 3).prediction == label
                for j in range(counts[label]["generated"])
            ]
        )
        for label in range(3)
    ]
    drawn = {counts[label]["generated"] for label in range(3)}
    assert len(drawn) > 1  # so that a mean over images would be another number
    assert made.summary["teacher_metric"]["generated"] == pytest.approx(100 * np.mean(generated))


def test_the_effective_share_divides_by_the_pools_own_scale(fabric: Fabric) -> None:
    class Scaled(nn.Module):
        """The same ratio everywhere, but a hundred times larger for class 2."""

        def forward(self, features: Tensor, targets: Tensor) -> Tensor:
            return torch.where(targets == 2, 100.0, 1.0)

    extractor = FeatureExtractor(Teacher(3), fabric)
    settings = SynthesisSettings(images=6, **PLAIN)
    made = processed(CallableSampler(pixels), extractor, Scaled(), plan_of(CLASSES, 6), CLASSES, settings, seed=0)
    assert made.summary["effective_sample_share"] == pytest.approx(1.0)
    assert made.summary["acceptance"] == 1.0


def test_a_dead_ratio_accepts_all(fabric: Fabric) -> None:
    class Dead(nn.Module):
        def forward(self, features: Tensor, targets: Tensor) -> Tensor:
            return 0.0 * features[:, 0]

    extractor = FeatureExtractor(Teacher(3), fabric)
    settings = SynthesisSettings(images=6, **PLAIN)
    made = processed(CallableSampler(pixels), extractor, Dead(), plan_of(CLASSES, 6), CLASSES, settings, seed=0)
    assert made.summary["acceptance"] == 1.0
    assert made.summary["kept"] == 6
    assert made.summary["not_subsampled"] == ["a", "b", "c"]
    json.dumps(made.summary, allow_nan=False)  # as artifact.json is written


def test_a_label_that_gets_no_calibration_fake_still_gives_a_summary_that_json_holds(fabric: Fabric) -> None:
    def sample(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        images = pixels(targets, indices, seed)
        if seed != rng.key(3, "burn-in") % SEEDS:
            images.view(-1, 256)[targets == 2, RATIO] = 0  # after the burn-in, class 2 is never accepted again
        return images

    extractor = FeatureExtractor(Teacher(3), fabric)
    settings = SynthesisSettings(images=6, **{**PLAIN, "max_draws": 2})
    made = processed(CallableSampler(sample), extractor, Ratio(), plan_of(CLASSES, 6), CLASSES, settings, seed=3)
    assert not (made.fakes.labels == 2).any()
    assert made.summary["per_label"][2]["kept"] == 0
    json.dumps(made.summary, allow_nan=False)  # as artifact.json is written


def test_a_teacher_that_is_always_sure_keeps_everything(fabric: Fabric) -> None:
    # all errors are equal, so that strictly below the quantile there is nothing
    def sample(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        images = torch.zeros(len(targets), 1, 16, 16, dtype=torch.uint8)
        images.view(-1, 256)[:, FIRST_OUTPUT] = 255
        return images

    extractor = FeatureExtractor(Teacher(1), fabric)
    plan = dataclasses.replace(
        plan_of(DEGREES, 8),
        targets=torch.ones(2),
        quota=torch.tensor([4, 4]),
        pool=torch.zeros(2, dtype=torch.int64),
        group=torch.zeros(2, dtype=torch.int64),
    )
    settings = SynthesisSettings(images=8, **PLAIN)
    made = processed(CallableSampler(sample), extractor, None, plan, DEGREES, settings, seed=0)
    assert made.summary["kept"] == made.summary["generated"] == 8
    assert made.summary["teacher_metric"]["kept"] == 0.0


def test_examples_show_what_became_of_the_proposals(fabric: Fabric) -> None:
    plan = plan_of(CLASSES, 30)
    made = run(CLASSES, fabric, plan)
    kept = {image.numpy().tobytes() for image in made.fakes.images}
    for fate in ("kept", "dropped", "rejected"):
        images = made.samples[f"{fate}_images"]
        assert 0 < len(images) <= 60
        assert all((image.numpy().tobytes() in kept) == (fate == "kept") for image in images)
        for column in ("labels", "predictions", "errors", "ratios"):
            assert len(made.samples[f"{fate}_{column}"]) == len(images)
        assert torch.equal(made.samples[f"{fate}_ratios"], images.view(-1, 256)[:, RATIO].float() / 255 * 2)


def test_the_effective_share_of_each_label(fabric: Fabric) -> None:
    plan = plan_of(CLASSES, 12)
    made = run(CLASSES, fabric, plan)
    for label, entry in enumerate(made.summary["per_label"]):
        found = np.array([propose(CLASSES, torch.tensor(label), j, "burn-in", 3).ratio for j in range(15)])
        assert entry["effective_sample_share"] == pytest.approx(found.sum() ** 2 / (15 * (found**2).sum()), rel=1e-5)


def test_a_budget_is_kept(fabric: Fabric) -> None:
    plan = plan_of(CLASSES, 900)
    made = run(CLASSES, fabric, plan, subsampling=RatioBudget(draws=3.0, burn_in=1500), filter=False)
    assert made.summary["draws_per_image"] == pytest.approx(3.0, rel=0.12)  # 900 geometric draws: 2.7 % each way
    assert made.summary["subsampling"] == "budget"


# --- several teachers, soft labels --------------------------------------------------------------------------------


class Other(Teacher):
    """Reads the same pixels, but takes each class for the next and is less sure."""

    def __init__(self, outputs: int) -> None:
        super().__init__(outputs)
        with torch.no_grad():
            self.fc.weight.copy_(0.5 * self.fc.weight.roll(1, dims=0))


@pytest.mark.parametrize("task", [CLASSES, DEGREES])
def test_the_jurys_mean_error_and_vote(task: Task, fabric: Fabric) -> None:
    plan = plan_of(task, 40)
    teachers = [Teacher(task.num_outputs), Other(task.num_outputs)]
    extractor = FeatureExtractor(teachers[0], fabric, others=teachers[1:])
    soft = {"replace": "soft"} if task.mixable else {}
    settings = SynthesisSettings(images=40, **PLAIN, **soft)
    plan = dataclasses.replace(plan, group=torch.zeros_like(plan.group))
    made = processed(CallableSampler(pixels), extractor, Ratio(), plan, task, settings, seed=3)
    assert made.summary["teachers"] == 2
    pixel = made.fakes.images.flatten(1).double().numpy() / 255
    y = task.to_target(made.fakes.labels).numpy()
    columns = {name: column.numpy() for name, column in made.fakes.columns.items()}
    if task is CLASSES:
        first = 8 * pixel[:, FIRST_OUTPUT : FIRST_OUTPUT + 3]
        votes = [np.exp(logits) / np.exp(logits).sum(1, keepdims=True) for logits in (first, np.roll(first, 1, 1) / 2)]
        errors = [-np.log(p[np.arange(len(y)), y]) for p in votes]
        assert np.allclose(columns["probabilities"], np.mean(votes, axis=0), atol=1e-5)
        assert columns["prediction"].tolist() == np.mean(votes, axis=0).argmax(1).tolist()
    else:
        votes = [pixel[:, FIRST_OUTPUT], pixel[:, FIRST_OUTPUT] / 2]
        errors = [np.abs(vote - y) for vote in votes]
        assert np.allclose(columns["prediction"], 90 * np.mean(votes, axis=0), atol=1e-3)
        assert "probabilities" not in columns
    assert np.allclose(columns["error"], np.mean(errors, axis=0), atol=1e-5)
    (alpha,) = made.summary["thresholds"]
    assert alpha == pytest.approx(float(made.samples["calibration_errors"].quantile(task.filter_quantile)))
    assert columns["error"].max() < alpha


def test_a_jury_weighed_by_confidence(fabric: Fabric) -> None:
    teachers = [Teacher(3), Other(3)]
    extractor = FeatureExtractor(teachers[0], fabric, others=teachers[1:], by_confidence=True)
    plan = plan_of(CLASSES, 40)
    settings = SynthesisSettings(images=40, replace="soft", **PLAIN)
    plan = dataclasses.replace(plan, group=torch.zeros_like(plan.group))
    fakes = processed(CallableSampler(pixels), extractor, Ratio(), plan, CLASSES, settings, seed=3).fakes
    first = 8 * fakes.images.flatten(1).double().numpy()[:, FIRST_OUTPUT : FIRST_OUTPUT + 3] / 255
    votes = [np.exp(logits) / np.exp(logits).sum(1, keepdims=True) for logits in (first, np.roll(first, 1, 1) / 2)]
    doubt = np.exp([-(p * np.log(p)).sum(1) for p in votes])
    weights = 1 - doubt / doubt.sum(0)  # of two teachers
    assert np.allclose(weights.sum(0), 1)
    probabilities = sum(w[:, None] * p for w, p in zip(weights, votes, strict=True))
    assert np.allclose(fakes.columns["probabilities"].numpy(), probabilities, atol=1e-5)
    y = CLASSES.to_target(fakes.labels).numpy()
    error = sum(w * -np.log(p[np.arange(len(y)), y]) for w, p in zip(weights, votes, strict=True))
    assert np.allclose(fakes.columns["error"].numpy(), error, atol=1e-5)


def test_probabilities_are_kept_only_where_they_are_wanted(fabric: Fabric) -> None:
    plan = plan_of(CLASSES, 6)
    assert "probabilities" not in run(CLASSES, fabric, plan).fakes.columns
    found = run(CLASSES, fabric, plan, replace="soft").fakes.columns["probabilities"]
    assert found.shape == (6, 3)
    assert torch.allclose(found.sum(dim=1), torch.ones(6))


# --- a shelf of images --------------------------------------------------------------------------------------------


def test_draws_end_where_the_shelf_does(fabric: Fabric) -> None:
    held = torch.tensor([7, 0, 40])

    class Shelf:
        def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
            assert (indices < held[targets]).all()
            return pixels(targets, indices, seed)

        def available(self, targets: Tensor) -> Tensor:
            return held[targets]

    extractor = FeatureExtractor(Teacher(3), fabric)
    settings = SynthesisSettings(images=30, **{**PLAIN, "filter": False})
    made = processed(Shelf(), extractor, Ratio(), plan_of(CLASSES, 30), CLASSES, settings, seed=3)
    counts = [entry["generated"] for entry in made.summary["per_label"]]
    assert counts[:2] == [7, 0]
    assert 10 < counts[2] <= 40
    json.dumps(made.summary, allow_nan=False)
    held.zero_()
    for ratio, filtered in ((Ratio(), False), (None, True), (None, False)):  # whichever asks the shelf first
        settings = SynthesisSettings(images=30, **({**PLAIN} if filtered else {**PLAIN, "filter": False}))
        with pytest.raises(UserError, match="holds no image at any of the requested labels"):
            processed(Shelf(), extractor, ratio, plan_of(CLASSES, 30), CLASSES, settings, seed=3)
