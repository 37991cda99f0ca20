"""All three networks: sizes, what the settings change, what the label and z reach, and BigGAN's and SAGAN's own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from cgankd.config.settings import GanSettings
from cgankd.core.errors import UserError
from cgankd.gan import biggan
from cgankd.gan.blocks import SelfAttention, attention_level, map_widths
from cgankd.gan.generator import new_networks
from cgankd.gan.residual import Maps
from cgankd.labels import label_embedding
from cgankd.tasks import Classification, Regression, Task

CLASSES = Classification(tuple("abcd"))
SCALARS = Regression(0.0, 1.0)
TASKS = {"classes": (CLASSES, torch.tensor([0, 3, 1])), "scalars": (SCALARS, torch.tensor([0.0, 1.0, 0.3]))}


def networks(
    name: str, size: int = 16, channels: int = 1, task: Task = CLASSES, **changes: Any
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    settings = GanSettings(**{"network": name, "channels": 4, "latent": 9, "label_dim": 8, **changes})
    return new_networks(settings, label_embedding(task, None, 8), channels, (size, size))


@pytest.mark.parametrize("name", ["sngan", "sagan", "biggan"])
@pytest.mark.parametrize("size", [16, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("labels", TASKS)
def test_shapes_and_gradients(name: str, size: int, channels: int, labels: str) -> None:
    task, targets = TASKS[labels]
    pooling, shared = ("sum", True) if channels == 1 else ("flatten", False)
    generator, discriminator = networks(name, size, channels, task, pooling=pooling, shared_embedding=shared)
    images = generator(torch.randn(3, 9), targets)
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1
    logits = discriminator(images, targets)
    assert logits.shape == (3,)
    logits.sum().backward()
    for network in (generator, discriminator):
        assert all(weight.grad is not None for weight in network.parameters() if weight.requires_grad)


@pytest.mark.parametrize("name", ["sagan", "biggan"])
def test_images_that_are_not_square(name: str) -> None:
    settings = GanSettings(network=name, channels=4, latent=9, label_dim=8)
    generator, discriminator = new_networks(settings, label_embedding(CLASSES, None, 8), 1, (49, 33))
    images = generator(torch.randn(2, 9), torch.tensor([0, 1]))
    assert images.shape == (2, 1, 49, 33)
    assert discriminator(images, torch.tensor([0, 1])).shape == (2,)


@pytest.mark.parametrize("name", ["sngan", "sagan", "biggan"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("labels", TASKS)
def test_the_label_and_z_decide(name: str, shared: bool, labels: str) -> None:
    task, targets = TASKS[labels]
    generator, discriminator = networks(name, task=task, shared_embedding=shared)
    generator.eval()
    discriminator.eval()
    z = torch.randn(3, 9)
    with torch.no_grad():
        one_z, one_label = generator(z[:1].repeat(3, 1), targets), generator(z, targets[:1].repeat(3))
        logits = discriminator(one_z[:1].repeat(3, 1, 1, 1), targets)
    for images in (one_z, one_label):
        assert min((a - b).abs().max() for a, b in itertools.combinations(images, 2)) > 1e-3
    assert min((a - b).abs() for a, b in itertools.combinations(logits, 2)) > 1e-5


@pytest.mark.parametrize("name", ["sngan", "sagan", "biggan"])
def test_norms_of_their_own_embedding_ignore_the_others(name: str) -> None:
    shared, _ = networks(name)
    apart, _ = networks(name, shared_embedding=False)
    assert len(shared.other_embeddings) == 0
    norms = 4  # of two blocks; BigGAN's first map has no label
    assert 1 + len(apart.other_embeddings) == norms + (name != "biggan")
    apart.eval()
    seen: dict[str, list[Tensor]] = {"first": [], "norm1": [], "norm2": []}
    apart.first.register_forward_pre_hook(lambda module, args: seen["first"].append(args[0]))
    for which in ("norm1", "norm2"):
        norm = getattr(apart.blocks[1], which)
        norm.register_forward_pre_hook(lambda module, args, which=which: seen[which].append(args[1]))
    z, targets = torch.randn(2, 9), torch.tensor([0, 1])
    with torch.no_grad():
        apart(z, targets)
        apart.other_embeddings[-2].weight.add_(1.0)  # that of the second block's first norm
        apart(z, targets)
    changed = {which: not torch.equal(*pair) for which, pair in seen.items()}
    assert changed == {"first": False, "norm1": True, "norm2": False}


def test_a_fixed_embedding_is_not_copied_per_norm() -> None:
    generator, _ = networks("sngan", task=SCALARS, shared_embedding=False)
    assert len(generator.other_embeddings) == 0


@pytest.mark.parametrize("name", ["sngan", "sagan", "biggan"])
def test_a_trained_embedding_comes_into_both_networks_unchanged(name: str) -> None:
    settings = GanSettings(network=name, channels=4, latent=9, label_dim=8)
    embedding = label_embedding(SCALARS, None, 8)
    before = {key: value.clone() for key, value in embedding.state_dict().items()}
    for network in new_networks(settings, embedding, 1, (16, 16)):
        assert network.embedding is not embedding
        for key, value in network.embedding.state_dict().items():
            assert torch.equal(value, before[key]), key


# --- widths and attention -----------------------------------------------------------------------------------------


def test_widths_by_hand() -> None:
    assert map_widths((16, 16), 3) == [3, 6]
    assert map_widths((64, 64), 3) == [3, 6, 12, 12]
    assert map_widths((32, 64), 3, (1, 5, 2)) == [3, 15, 6]
    with pytest.raises(UserError, match=r"^generator.multipliers has 2 numbers; images of 48x32 pixels need 3$"):
        map_widths((32, 48), 3, (1, 2))


@pytest.mark.parametrize("name", ["sngan", "sagan", "biggan"])
def test_multipliers_and_discriminator_channels_set_the_maps(name: str) -> None:
    generator, discriminator = networks(name, 32, multipliers=(1, 2, 3), discriminator_channels=5)
    maps: list[tuple[int, ...]] = []

    def record(module: nn.Module, args: Any, output: Tensor) -> None:
        maps.append(tuple(output.shape[1:]))

    for block in [*generator.blocks, *(b for b in discriminator.blocks if not isinstance(b, SelfAttention))]:
        block.register_forward_hook(record)
    targets = torch.tensor([0, 1])
    discriminator(generator(torch.randn(2, 9), targets), targets)
    assert maps[:3] == [(12, 8, 8), (8, 16, 16), (4, 32, 32)]
    assert maps[3:] == [(5, 16, 16), (10, 8, 8), (15, 4, 4), (15, 4, 4)]


def test_attention_levels_by_hand() -> None:
    assert [attention_level((32, 32), side) for side in (None, 16, 8, 4)] == [1, 1, 2, 3]
    assert [attention_level((28, 28), side) for side in (None, 14, 7)] == [1, 1, 2]
    assert attention_level((64, 100), 8) == 3
    for side in (32, 5):  # the image itself has no attention
        with pytest.raises(UserError, match=rf"^generator.network.attention is {side}; images of 32x32 .* 16, 8, 4$"):
            attention_level((32, 32), side)


@pytest.mark.parametrize("name", ["sagan", "biggan"])
@pytest.mark.parametrize(("size", "side"), [(32, None), (32, 16), (32, 8), (32, 4), (28, 7)])
def test_attention_is_at_the_asked_side_of_both_networks(name: str, size: int, side: int | None) -> None:
    generator, discriminator = networks(name, size, network={"kind": name, "attention": side})
    sides: list[int] = []
    for network in (generator, discriminator):
        (attention,) = (module for module in network.modules() if isinstance(module, SelfAttention))
        attention.register_forward_hook(lambda module, args, output: sides.append(output.shape[2]))
    targets = torch.tensor([0, 1])
    discriminator(generator(torch.randn(2, 9), targets), targets)
    assert sides == [side or size // 2] * 2


@pytest.mark.parametrize("name", ["sagan", "biggan"])
def test_attention_may_be_off(name: str) -> None:
    for network in networks(name, 32, network={"kind": name, "attention": 0}):
        assert not any(isinstance(module, SelfAttention) for module in network.modules())


def test_sngan_refuses_attention() -> None:
    with pytest.raises(ValidationError, match=r"network\.sngan\.attention"):
        GanSettings(network={"kind": "sngan", "attention": 8})


@pytest.mark.parametrize("side", [4, 7])
def test_attention_against_plain_loops(side: int) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(16).eval()
    x = torch.randn(2, 16, side, side)
    with torch.no_grad():
        assert torch.equal(attention(x), x)  # gamma is 0 at first
        attention.gamma.fill_(0.7)
        found = attention(x)
    f, g, h, v = (getattr(attention, name).weight.detach().double()[:, :, 0, 0] for name in "fghv")
    assert f.shape == g.shape == (2, 16)
    assert h.shape == (8, 16)
    cells = [range(start, min(start + 2, side)) for start in range(0, side, 2)]
    for image, result in zip(x.double(), found.double(), strict=True):
        keys, values = [], []
        for rows, columns in itertools.product(cells, cells):
            pixels = [image[:, row, column] for row in rows for column in columns]
            keys.append(torch.stack([g @ pixel for pixel in pixels]).amax(dim=0))
            values.append(torch.stack([h @ pixel for pixel in pixels]).amax(dim=0))
        for row, column in itertools.product(range(side), range(side)):
            scores = [float((f @ image[:, row, column]) @ key) for key in keys]
            weights = torch.tensor(scores, dtype=torch.float64).exp()
            seen = sum(w / weights.sum() * value for w, value in zip(weights, values, strict=True))
            expected = image[:, row, column] + 0.7 * (v @ seen)
            assert torch.allclose(result[:, row, column], expected, atol=1e-5)


# --- what SAGAN and BigGAN do to weights and z --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "free"), [("sagan", {"scale_shift"}), ("biggan", set())])
def test_spectral_norm_is_in_the_generator_too(name: str, free: set[str]) -> None:
    generator, discriminator = networks(name)
    with torch.no_grad():
        for network in (generator, discriminator):
            for weight in network.parameters():
                weight.mul_(3.0)
    targets = torch.tensor([0, 1, 2, 3])
    discriminator(generator(torch.randn(4, 9), targets), targets)
    both = [*generator.modules(), *discriminator.modules()]
    weighted = [module for module in both if hasattr(module, "parametrizations")]
    for _ in range(100):
        for module in weighted:
            _ = module.weight  # reading a weight is one power iteration
    generator.eval()
    discriminator.eval()
    checked = 0
    for network in (generator, discriminator):
        for path, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and path.rsplit(".", 1)[-1] not in free:
                norm = float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), ord=2))
                assert norm == pytest.approx(1.0, abs=0.03), path
                checked += 1
    assert checked > 20


def test_biggan_weights_are_orthogonal_at_first() -> None:
    generator, discriminator = networks("biggan", 16, 3)
    for network in (generator, discriminator):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.parametrizations.weight.original.detach().flatten(1)
                weight = weight if weight.shape[0] <= weight.shape[1] else weight.T
                assert torch.allclose(weight @ weight.T, torch.eye(len(weight)), atol=1e-5)


def test_biggan_gives_each_block_its_own_part_of_z() -> None:
    generator, _ = networks("biggan", 16)  # z of 9 in three parts: first map, block 0, block 1
    generator.eval()
    seen: list[list[Tensor]] = [[], [], []]
    generator.first.register_forward_pre_hook(lambda module, args: seen[0].append(args[0]))
    for number in (0, 1):
        for which in ("norm1", "norm2"):
            norm = getattr(generator.blocks[number], which)
            norm.register_forward_pre_hook(lambda module, args, number=number: seen[number + 1].append(args[1]))
    z, targets = torch.randn(2, 9), torch.tensor([0, 3])
    with torch.no_grad():
        generator(z, targets)
    label = generator.embedding.weight.detach()[targets] * (3 / 8) ** 0.5  # as long as the part beside it
    assert torch.equal(seen[0][0], z[:, :3])
    for number, part in ((1, z[:, 3:6]), (2, z[:, 6:])):
        for condition in seen[number]:
            assert torch.allclose(condition, torch.cat([part, label], dim=1))


def test_parts_of_uneven_length_and_too_short_a_z() -> None:
    maps, embedding = Maps(map_widths((16, 16), 4), (16, 16), 1, 6, attention=1), nn.Embedding(2, 6)
    generator = biggan.Generator(embedding, maps, 8)
    assert generator.parts == [3, 3, 2]
    assert generator(torch.randn(2, 8), torch.tensor([0, 1])).shape == (2, 1, 16, 16)
    with pytest.raises(UserError, match=r"^generator.latent is 2; biggan cuts it into 3 parts at 16x16 pixels"):
        biggan.Generator(embedding, maps, 2)
