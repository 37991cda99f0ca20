"""SNGAN: sizes, the projection term, conditional normalisation and spectral norms by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cgankd.gan.blocks import ConditionalNorm, DownBlock, map_widths, up_blocks
from cgankd.gan.residual import Maps
from cgankd.gan.sngan import Discriminator, Generator

SIZES = [(16, 16), (24, 24), (32, 32), (49, 33), (64, 64), (20, 70)]


def networks(
    size: tuple[int, int], channels: int = 3, pooling: str = "sum", width: int = 4
) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    maps = Maps(map_widths(size, width), size, channels, 6)
    return Generator(nn.Embedding(5, 6), maps, 7), Discriminator(nn.Embedding(5, 6), maps, pooling)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pooling", ["sum", "flatten"])
def test_images_of_every_size(size: tuple[int, int], channels: int, pooling: str) -> None:
    generator, discriminator = networks(size, channels, pooling)
    targets = torch.tensor([0, 4, 2])
    images = generator(torch.randn(3, 7), targets)
    assert images.shape == (3, channels, *size)
    assert images.abs().max() <= 1
    logits = discriminator(images, targets)
    assert logits.shape == (3,)
    logits.sum().backward()
    for network in (generator, discriminator):
        assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("size", "blocks"), [((16, 16), 2), ((31, 31), 2), ((32, 32), 3), ((49, 33), 3), ((64, 64), 4), ((200, 16), 2)]
)
def test_the_smaller_side_starts_at_four_to_seven_pixels(size: tuple[int, int], blocks: int) -> None:
    assert up_blocks(size) == blocks
    assert 4 <= min(size) / 2**blocks < 8


@pytest.mark.parametrize("pooling", ["sum", "flatten"])
def test_two_labels_differ_by_the_projection_term(pooling: str) -> None:
    _, discriminator = networks((16, 16), pooling=pooling)
    discriminator.eval()
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    seen = []
    discriminator.blocks.register_forward_hook(lambda module, args, output: seen.append(output))
    a, b = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 0, 3])
    with torch.no_grad():
        difference = discriminator(images, a) - discriminator(images, b)
        h = F.relu(seen[0])
        h = h.sum(dim=(2, 3)) if pooling == "sum" else h.flatten(1)
        embedded = discriminator.embedding.weight / 6**0.5  # of length 6
        direction = (embedded[a] - embedded[b]) @ discriminator.projection.weight.T  # [B, feature]
        alone = h @ discriminator.linear.weight.T[:, 0] + discriminator.linear.bias
        whole = alone + ((embedded[a] @ discriminator.projection.weight.T) * h).sum(dim=1)
    assert torch.allclose(difference, (direction * h).sum(dim=1), atol=1e-5)
    assert difference[:3].abs().min() > 1e-3
    assert float(difference[3]) == 0.0  # the same label
    assert torch.allclose(discriminator(images, a), whole, atol=1e-5)


def test_every_weight_of_the_discriminator_has_spectral_norm_one() -> None:
    _, discriminator = networks((16, 16), width=8)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(3.0)  # so that nothing is near 1 by itself
    images, targets = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    discriminator.train()
    for _ in range(100):  # one power iteration each
        discriminator(images, targets)
    discriminator.eval()
    found = 0
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            norm = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2).detach()
            assert float(norm) == pytest.approx(1.0, abs=0.03)
            found += 1
    assert found == 1 + 3 * 2 + 2  # stem, two blocks of three, linear, projection


def test_evaluation_does_not_move_the_power_iteration() -> None:
    _, discriminator = networks((16, 16))
    discriminator.eval()
    before = {key: value.clone() for key, value in discriminator.state_dict().items()}
    discriminator(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))
    assert all(torch.equal(value, before[key]) for key, value in discriminator.state_dict().items())


def test_conditional_norm_by_hand() -> None:
    norm = ConditionalNorm(3, 2)
    nn.init.normal_(norm.scale_shift.bias)
    x, label = torch.randn(8, 3, 4, 4), torch.randn(8, 2)
    flat = x.double()
    mean, variance = flat.mean(dim=(0, 2, 3)), flat.var(dim=(0, 2, 3), unbiased=False)
    standard = (flat - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
    linear = label.double() @ norm.scale_shift.weight.double().T + norm.scale_shift.bias.double()
    scale, shift = linear[:, :3, None, None], linear[:, 3:, None, None]
    assert torch.allclose(norm(x, label).double(), (1 + scale) * standard + shift, atol=1e-5)


@pytest.mark.parametrize("side", [8, 7])
def test_halving_before_the_shortcut_is_the_same_as_after(side: int) -> None:
    torch.manual_seed(0)
    block = DownBlock(3, 5, down=True).eval()
    nn.init.normal_(block.shortcut.bias)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        body = block.conv2(F.relu(block.conv1(F.relu(x))))
        whole = body + block.shortcut(x)
        padded = F.pad(whole, [0, side % 2, 0, side % 2], mode="replicate")  # the last odd row stands for itself
        expected = F.avg_pool2d(padded, 2)
        assert torch.allclose(block(x), expected, atol=1e-5)


def test_latent_and_label_both_reach_the_image() -> None:
    generator, _ = networks((16, 16))
    generator.eval()
    z, targets = torch.randn(2, 7), torch.tensor([0, 0])
    same_label, same_latent = generator(z, targets), generator(z[:1].repeat(2, 1), torch.tensor([0, 1]))
    assert (same_label[0] - same_label[1]).abs().max() > 1e-3
    assert (same_latent[0] - same_latent[1]).abs().max() > 1e-3
