"""Training a GAN: it learns a label, goes on exactly after a kill, averages as written, and says when it fails."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.config.settings import ILI, NLI, GanSettings, ScalarLabelSettings, SoftVicinity
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.store import Store, Work, stage
from cgankd.data.imageset import ImageSet
from cgankd.gan import train as gan_train
from cgankd.gan.generator import (
    UNBOUNDED,
    GanSampler,
    TrainedGenerator,
    from_uint8,
    keep_generator,
    new_networks,
    to_uint8,
)
from cgankd.gan.losses import squared_gradient
from cgankd.gan.train import _settle_statistics, train_gan
from cgankd.labels import LabelSpace, label_embedding, label_space
from cgankd.tasks import Classification, Regression, Task
from works import with_checkpoint

CLASSES = Classification(("dark", "bright"))
SCALAR = Regression(0.0, 1.0)
SMALL = {"channels": 4, "latent": 5, "label_dim": 32, "batch_size": 8, "ema_start": 2}
QUICK = ScalarLabelSettings(label_input=ILI(steps=3))


def grey(task: Task, count: int = 64) -> ImageSet:
    """Images whose brightness is their label."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.rand(count, generator=rng) if task.continuous else torch.arange(count) % 2
    level = 30 + 190 * labels.float()[:, None, None, None]
    images = level + 20 * torch.rand(count, 1, 16, 16, generator=rng)
    return ImageSet(images.to(torch.uint8), labels)


def train(
    task: Task,
    fabric: Fabric,
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    scalar: ScalarLabelSettings = QUICK,
    last: int = 2,
    data: ImageSet | None = None,
    **changes: Any,
) -> tuple[GanSampler, list[dict[str, Any]]]:
    """last: batches over which the final statistics are computed. The usual number takes as long as several steps."""
    settings = GanSettings(**{**SMALL, "steps": 6, **changes})
    work, given = with_checkpoint(Work(fabric), checkpoint), scalar if task.continuous else None
    with mock.patch.object(gan_train, "STATISTICS_BATCHES", last):
        sampler, history, _ = train_gan(work, data or grey(task), task, settings, given, seed=seed)
    return sampler, history


def two_classes(settings: GanSettings) -> tuple[LabelSpace, nn.Module, nn.Module]:
    """The label space of two classes, and untrained networks."""
    embedding = label_embedding(CLASSES, None, settings.label_dim)
    return label_space(CLASSES, grey(CLASSES).labels), *new_networks(settings, embedding, 1, (16, 16))


class Recorder(Checkpoint):
    """Keeps every state it is asked to save, and raises after ``stop`` steps."""

    def __init__(self, path: Path, stop: int | None = None) -> None:
        super().__init__(path, every_seconds=0.0)
        self.stop = stop
        self.states: list[dict[str, dict[str, Tensor]]] = []

    def save(self, step: int, modules: Mapping[str, nn.Module] = MappingProxyType({}), *rest: Any) -> None:
        self.states.append(
            {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in modules.items()}
        )
        super().save(step, modules, *rest)
        if step == self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("task", "stop"), [(CLASSES, 4), (SCALAR, 1)])  # after and before the average has begun
def test_a_killed_training_goes_on_bit_for_bit(task: Task, stop: int, fabric: Fabric, tmp_path: Path) -> None:
    soft = ScalarLabelSettings(vicinity=SoftVicinity(), label_input=QUICK.label_input)
    changes = {"discriminator_steps": 2, "diffaugment": ("color", "translation", "cutout"), "scalar": soft}
    whole, history = train(task, fabric, **changes)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(task, fabric, Recorder(path, stop), **changes)
    torch.manual_seed(99)  # whatever the new process does before
    again, resumed = train(task, fabric, Checkpoint(path, 1e9), **changes)
    assert resumed == history
    assert len(history) == 6
    for key, value in whole.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value), key


@pytest.mark.parametrize(
    "changes",
    [
        {
            "network": "sagan",
            "loss": "vanilla",
            "lecam": 0.3,
            "r1": {"gamma": 1.0, "every": 3},
            "discriminator_steps": 2,
        },
        {"network": "biggan", "lecam": 0.3, "shared_embedding": False, "latent": 7, "mode_seeking": 0.1},
    ],
    ids=["sagan", "biggan"],
)
def test_every_networks_training_goes_on_bit_for_bit(changes: dict[str, Any], fabric: Fabric, tmp_path: Path) -> None:
    changes = {"steps": 4, **changes}
    whole, history = train(CLASSES, fabric, **changes)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(CLASSES, fabric, Recorder(path, 3), **changes)
    again, resumed = train(CLASSES, fabric, Checkpoint(path, 1e9), **changes)
    assert resumed == history
    for key, value in whole.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value), key


def states(fabric: Fabric, path: Path, **changes: Any) -> list[dict[str, Tensor]]:
    """The discriminator after each step."""
    recorder = Recorder(path)
    train(CLASSES, fabric, recorder, **{"steps": 3, **changes})
    return [state["discriminator"] for state in recorder.states]


def differs(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(value, other[key]) for key, value in one.items())


def test_r1_comes_every_so_many_discriminator_steps(fabric: Fabric, tmp_path: Path) -> None:
    plain = states(fabric, tmp_path / "a")
    rare = states(fabric, tmp_path / "b", r1={"gamma": 5.0, "every": 4})
    often = states(fabric, tmp_path / "c", r1={"gamma": 5.0, "every": 2})
    assert differs(plain[0], rare[0])  # the first step has it
    assert differs(rare[0], often[0])  # twice as large, where it comes half as often
    assert differs(often[1], rare[1])


def test_r1_holds_the_discriminators_gradient_down(fabric: Fabric, tmp_path: Path) -> None:
    data = grey(CLASSES)
    norms = []
    for name, r1 in (("without", None), ("with", {"gamma": 10.0, "every": 2})):
        last = states(fabric, tmp_path / name, steps=8, r1=r1, discriminator_rate=4e-3)[-1]
        _, _, discriminator = two_classes(GanSettings(**SMALL))
        discriminator.load_state_dict(last)
        norms.append(float(squared_gradient(discriminator.eval(), from_uint8(data.images), data.labels).detach()))
    assert norms[1] < 0.5 * norms[0]


@pytest.mark.parametrize("changes", [{"loss": "vanilla"}, {"lecam": 1.0}])
def test_loss_and_lecam_reach_the_networks(changes: dict[str, Any], fabric: Fabric, tmp_path: Path) -> None:
    plain, changed = states(fabric, tmp_path / "a")[-1], states(fabric, tmp_path / "b", **changes)[-1]
    assert differs(plain, changed)


@pytest.mark.parametrize(
    ("task", "size", "steps"), [(CLASSES, 8, 8), pytest.param(SCALAR, 5, 16, marks=pytest.mark.long)]
)
def test_mode_seeking_gives_other_images_for_other_latents(task: Task, size: int, steps: int, fabric: Fabric) -> None:
    apart = []
    for weight in (0.0, 3.0):
        numbers = {"steps": steps, "batch_size": size, "generator_rate": 1e-2, "ema": 0.8, "last": 20}
        sampler, _ = train(task, fabric, mode_seeking=weight, **numbers)
        images = sampler.sample(torch.ones(50).to(grey(task).labels), torch.arange(50), 0)
        apart.append(float(images.float().std(dim=0).mean()))
    assert apart[1] > 1.5 * apart[0]


def test_mode_seeking_looks_at_pairs_of_one_label(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    # brightness is the label, so images of two labels would be further apart than those of one
    asked: list[Tensor] = []
    networks = gan_train.new_networks

    def watched(*args: Any) -> tuple[nn.Module, nn.Module]:
        generator, discriminator = networks(*args)
        generator.register_forward_pre_hook(lambda _, given: asked.append(given[1]))
        return generator, discriminator

    monkeypatch.setattr(gan_train, "new_networks", watched)
    train(SCALAR, fabric, steps=1, mode_seeking=0.1, batch_size=7)
    targets = asked[1]  # the first are the discriminator's fakes
    assert torch.equal(targets[:3], targets[-3:])
    assert len(targets.unique()) == 4


@pytest.mark.parametrize(
    ("network", "task"), [("sagan", CLASSES), pytest.param("biggan", SCALAR, marks=pytest.mark.long)]
)
def test_a_short_training_of_every_network_stays_finite(network: str, task: Task, fabric: Fabric) -> None:
    nli = {"scalar": ScalarLabelSettings(label_input=NLI())} if network == "sagan" else {}
    sampler, history = train(
        task, fabric, network=network, steps=20, batch_size=8, latent=9, generator_rate=2e-3,
        discriminator_rate=4e-3, ema=0.8, last=20, **nli,
    )  # fmt: skip
    assert all(math.isfinite(value) for entry in history for value in entry.values())
    images = sampler.sample(labels(sampler, 20), torch.arange(20), 1)
    assert images.float().std() > 1
    # the averaged weights' spectral norms are their own: power iteration has nothing left to add
    for name, module in sampler.network.named_modules():
        if isinstance(module, nn.Conv2d) and "attention" not in name:
            norm = float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), ord=2))
            assert norm == pytest.approx(1.0, abs=0.03), name


def test_statistics_settle_from_the_trained_networks_spectral_norms_on(fabric: Fabric) -> None:
    settings = GanSettings(**SMALL, network="sagan")
    space, generator, _ = two_classes(settings)
    for _ in range(30):
        generator(torch.randn(4, 5), torch.tensor([0, 1, 0, 1]))
    right, stale = copy.deepcopy(generator), copy.deepcopy(generator)
    for name, vector in stale.named_buffers():
        if name.endswith(("_u", "_v")):
            vector.copy_(nn.functional.normalize(torch.randn_like(vector), dim=0))
    for average in (right, stale):
        _settle_statistics(average, generator, space, settings, fabric, 0)
    for key, value in right.state_dict().items():
        assert torch.equal(stale.state_dict()[key], value), key


def test_the_same_seed_gives_the_same_generator_and_another_does_not(fabric: Fabric) -> None:
    weights = [train(CLASSES, fabric, seed=seed, steps=2)[0].network.state_dict()["first.weight"] for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_average_is_an_exponential_mean_from_its_start_on(fabric: Fabric, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "c")
    train(CLASSES, fabric, recorder, ema=0.75, ema_start=2, generator_rate=1e-2)
    names = [name for name, _ in train(CLASSES, fabric, steps=1)[0].network.named_parameters()]
    expected: dict[str, Tensor] = {}
    for step, state in enumerate(recorder.states):
        for name in names:
            weight = state["generator"][name].double()
            expected[name] = weight if step < 2 else 0.75 * expected[name] + 0.25 * weight
            assert torch.allclose(state["average"][name].double(), expected[name], atol=1e-6), (step, name)
    assert len(recorder.states) == 6
    last = recorder.states[-1]
    assert not torch.allclose(last["average"]["first.weight"], last["generator"]["first.weight"], atol=1e-4)


def test_final_statistics_are_the_averaged_networks_own(fabric: Fabric) -> None:
    sampler, _ = train(CLASSES, fabric, steps=10, generator_rate=2e-3, last=20)
    network = sampler.network
    assert not network.training
    seen: list[Tensor] = []
    network.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    sampler.sample(torch.arange(2).repeat(2000), torch.arange(4000), 5)
    inputs = seen[0].double()
    assert torch.allclose(network.norm.running_mean.double(), inputs.mean(dim=(0, 2, 3)), atol=0.1)
    assert torch.allclose(network.norm.running_var.double(), inputs.var(dim=(0, 2, 3)), rtol=0.3)


@pytest.mark.parametrize("task", [CLASSES, SCALAR])
def test_images_learn_their_label(task: Task, fabric: Fabric) -> None:
    brighter = []
    right = grey(task)
    for data in (right, ImageSet(255 - right.images, right.labels)):  # of a wrong label, both would be alike
        sampler, history = train(
            task, fabric, data=data, steps=24, batch_size=16, generator_rate=1e-2, discriminator_rate=2e-2, ema=0.8,
            ema_start=6, last=20, scalar=ScalarLabelSettings(label_input=ILI(steps=15)),
        )  # fmt: skip
        assert all(math.isfinite(value) for entry in history for value in entry.values())
        low, high = (torch.full((50,), value) for value in ((0.1, 0.9) if task.continuous else (0, 1)))
        dark, bright = (sampler.sample(targets, torch.arange(50), 1).float().mean() for targets in (low, high))
        brighter.append(float(bright - dark))
    assert brighter[0] > 60  # of 152 or 190 grey levels
    assert brighter[1] < -60


# --- the sampler --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[CLASSES, SCALAR], ids=["classes", "scalar"])
def sampler(request: pytest.FixtureRequest, fabric: Fabric) -> GanSampler:
    return train(request.param, fabric, steps=3)[0]


def labels(sampler: GanSampler, count: int) -> Tensor:
    embedding = sampler.network.embedding
    return torch.arange(count) % 2 if isinstance(embedding, nn.Embedding) else torch.linspace(0, 1, count)


def test_an_image_is_the_same_alone_and_in_a_batch(sampler: GanSampler) -> None:
    targets, indices = labels(sampler, 12), torch.arange(12) + 3
    together = sampler.sample(targets, indices, 4)
    alone = torch.cat([sampler.sample(t[None], j[None], 4) for t, j in zip(targets, indices, strict=True)])
    assert together.dtype == torch.uint8
    assert (together.int() - alone.int()).abs().max() <= 1
    order = torch.tensor([7, 2, 11])
    assert (sampler.sample(targets[order], indices[order], 4).int() - together[order].int()).abs().max() <= 1


def latents(sampler: GanSampler, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
    seen: list[Tensor] = []
    handle = sampler.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    sampler.sample(targets, indices, seed)
    handle.remove()
    return seen[0]


def test_latents_differ_over_labels_indices_and_seeds(sampler: GanSampler) -> None:
    targets = labels(sampler, 12)[:2].repeat_interleave(100)
    indices = torch.arange(100).repeat(2)
    z = torch.cat([latents(sampler, targets, indices, seed) for seed in (0, 1)])
    assert z.shape == (400, 5)
    assert len(z.unique(dim=0)) == 400
    assert (torch.corrcoef(z.view(4, -1)) - torch.eye(4)).abs().max() < 4 / math.sqrt(500)
    assert float(z.mean()) == pytest.approx(0, abs=4 / math.sqrt(2000))
    assert float(z.std()) == pytest.approx(1, abs=0.08)


def test_along_labels_the_latent_stays(sampler: GanSampler) -> None:
    targets = labels(sampler, 5)
    seen: list[Tensor] = []
    handle = sampler.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = sampler.along(targets, 2, 4)
    handle.remove()
    assert images.shape == (5, 1, 16, 16)
    assert torch.equal(seen[0], latents(sampler, targets[:1], torch.tensor([2]), 4).expand(5, -1))
    alone = sampler.sample(targets[:1], torch.tensor([2]), 4)[0]
    assert (images[0].int() - alone.int()).abs().max() <= 1  # sums in another order may round otherwise


def test_there_is_always_another_image(sampler: GanSampler) -> None:
    assert sampler.available(labels(sampler, 3)).tolist() == [UNBOUNDED] * 3


@stage()
def made_and_shown(work: Work, *, task: Task, network: str) -> dict[str, Any]:
    """A generator as the stage of the road keeps it, and images that it drew before."""
    settings, scalar = GanSettings(**SMALL, steps=2, network=network), QUICK if task.continuous else None
    sampler, *_ = train_gan(work, grey(task), task, settings, scalar, seed=0)
    drawn = labels(sampler, 8)
    work.save("shown", {"targets": drawn, "images": sampler.sample(drawn, torch.arange(8), 0)})
    return keep_generator(work, sampler, settings, scalar, task, grey(task))


@pytest.mark.parametrize(("task", "network"), [(CLASSES, "sngan"), (SCALAR, "sagan"), (CLASSES, "biggan")])
def test_a_saved_sampler_draws_the_same(task: Task, network: str, fabric: Fabric, tmp_path: Path) -> None:
    store = Store(tmp_path, fabric)
    artifact = store.call(made_and_shown, task=task, network=network)
    store.close()
    source, shown = TrainedGenerator(artifact), artifact.tensors("shown")
    assert source.content_key == artifact.key
    assert torch.equal(source.open(fabric).sample(shown["targets"], torch.arange(8), 0), shown["images"])


def test_grey_levels_survive_the_way_to_the_generators_range_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)
    assert from_uint8(levels[[0, 255]]).tolist() == [-1.0, 1.0]
    assert to_uint8(torch.tensor([-1.5, 0.0, 1.5])).tolist() == [0, 128, 255]
