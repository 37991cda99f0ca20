"""How many parameters the zoo's networks have: as published, and once more from their widths alone."""

import pytest
import torch

from cgankd.nets import zoo

# At 3x32x32 and 100 classes, as the distillation literature counts them (Tian et al., arXiv 1910.10699, and its
# code, github.com/HobbitLong/RepDistiller); resnet20 to resnet110 also in github.com/osmr/imgclsmob's list.
DISTILLATION = {
    "resnet20": 278_324, "resnet56": 861_620, "resnet110": 1_736_564, "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860, "resnet50": 23_705_252, "wrn_16_2": 703_284, "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156, "vgg8": 3_965_028, "vgg13": 9_462_180, "mobilenetv2": 812_836,
}  # fmt: skip

# At 10 classes, as listed for github.com/kuangliu/pytorch-cifar, whose networks these are.
CIFAR = {
    "vgg11": 9_231_114, "vgg13": 9_416_010, "vgg16": 14_728_266, "vgg19": 20_040_522, "resnet18": 11_173_962,
    "resnet34": 21_282_122, "resnet50": 23_520_842, "densenet121": 6_956_298, "densenet161": 26_482_378,
    "shufflenetv1": 862_768,
}  # fmt: skip

VGG_HEAD = (25_088 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000)  # of ImageNet's, 7x7 maps
# At 1000 classes, as torchvision documents them (num_params of its weights), and what our small-image stem and
# head have less: 7x7 -> 3x3 convolution, a batch normalisation, three linear layers -> one.
TORCHVISION = {
    "resnet18": (11_689_512, 64 * 3 * (49 - 9)),
    "resnet34": (21_797_672, 64 * 3 * (49 - 9)),
    "resnet50": (25_557_032, 64 * 3 * (49 - 9)),
    "densenet121": (7_978_856, 64 * 3 * (49 - 9) + 2 * 64),
    "densenet161": (28_681_000, 96 * 3 * (49 - 9) + 2 * 96),
    "efficientnet_b0": (5_288_548, 0),
    "vgg11": (132_868_840, VGG_HEAD - (512 * 1000 + 1000)),
    "vgg13": (133_053_736, VGG_HEAD - (512 * 1000 + 1000)),
    "vgg16": (138_365_992, VGG_HEAD - (512 * 1000 + 1000)),
    "vgg19": (143_678_248, VGG_HEAD - (512 * 1000 + 1000)),
    "shufflenetv2": (2_278_604, 24 * 3 * (9 - 1)),  # 3x3 -> 1x1
    "mobilenetv2_full": (3_504_872, -(32 * 32 + 2 * 32)),  # one 1x1 convolution more, in the first block
}


def count(name, outputs, channels=3):
    with torch.device("meta"):
        network = zoo.create(name, channels, outputs, (32, 32))
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "published"), DISTILLATION.items())
def test_counts_of_the_distillation_literature(name, published):
    assert count(name, 100) == published


@pytest.mark.parametrize(("name", "published"), CIFAR.items())
def test_counts_of_the_cifar_networks(name, published):
    assert count(name, 10) == published


@pytest.mark.parametrize(("name", "published", "less"), [(name, *pair) for name, pair in TORCHVISION.items()])
def test_counts_of_torchvision_less_stem_and_head(name, published, less):
    assert count(name, 1000) == published - less


def test_all_counts_at_once_are_those_of_real_networks():
    counts = zoo.parameter_counts(1, 7, (16, 16))
    assert list(counts) == zoo.names()
    for name in ("cnn8", "resnet8", "shufflenetv2"):
        network = zoo.create(name, 1, 7, (16, 16))
        assert counts[name] == sum(parameter.numel() for parameter in network.parameters())
    # one channel in place of three, in a stem of 3x3 convolutions to 16 channels, and 7 in place of 10 classes
    assert counts["resnet20"] == 272_474 - 9 * 16 * 2 - 3 * 65


def conv(inputs, outputs, kernel=3):
    return kernel**2 * inputs * outputs


def bn(channels):
    return 2 * channels


def linear(inputs, outputs):
    return inputs * outputs + outputs


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_small_resnet_counts_follow_from_the_depth(depth):
    total = conv(3, 16) + bn(16) + linear(64, 100)
    for inputs, outputs in [(16, 16), (16, 32), (32, 64)]:
        total += conv(inputs, outputs) + bn(outputs)
        total += (conv(inputs, outputs, 1) + bn(outputs)) * (inputs != outputs)
        total += (2 * (depth - 2) // 6 - 1) * (conv(outputs, outputs) + bn(outputs))
    assert count(f"resnet{depth}", 100) == total


@pytest.mark.parametrize(("depth", "k"), [(16, 1), (16, 2), (40, 1), (40, 2)])
def test_wide_resnet_counts_follow_from_depth_and_width(depth, k):
    total = conv(3, 16) + bn(64 * k) + linear(64 * k, 100)
    for inputs, outputs in [(16, 16 * k), (16 * k, 32 * k), (32 * k, 64 * k)]:
        blocks = (depth - 4) // 6
        total += bn(inputs) + bn(outputs) + conv(inputs, outputs) + conv(outputs, outputs)
        total += conv(inputs, outputs, 1) * (inputs != outputs)
        total += (blocks - 1) * 2 * (bn(outputs) + conv(outputs, outputs))
    assert count(f"wrn_{depth}_{k}", 100) == total


@pytest.mark.parametrize(("name", "w", "cells"), [("cnn8", 8, 1), ("cnn24", 24, 1), ("cnn40_grid", 40, 4)])
def test_cnn_counts_follow_from_the_width(name, w, cells):
    widths = [3, w, w, 2 * w, 2 * w, 4 * w, 4 * w]
    body = sum(conv(widths[k], widths[k + 1]) + bn(widths[k + 1]) for k in range(6))
    assert count(name, 100) == body + linear(4 * w * cells, 100)


@pytest.mark.parametrize(
    ("name", "convs"),
    [
        ("vgg8", (1, 1, 1, 1, 1)), ("vgg11", (1, 1, 2, 2, 2)), ("vgg13", (2, 2, 2, 2, 2)),
        ("vgg16", (2, 2, 3, 3, 3)), ("vgg19", (2, 2, 4, 4, 4)),
    ],
)  # fmt: skip
def test_vgg_counts_follow_from_the_configuration(name, convs):
    widths = [3, *(width for width, n in zip((64, 128, 256, 512, 512), convs, strict=True) for _ in range(n))]
    body = sum(conv(widths[k], widths[k + 1]) + 3 * widths[k + 1] for k in range(sum(convs)))
    assert count(name, 100) == body + linear(512, 100)


@pytest.mark.parametrize(("name", "width"), [("mobilenetv2", 0.5), ("mobilenetv2_full", 1.0)])
def test_mobilenet_counts_follow_from_the_width(name, width):
    widths = [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    widths = [int(channels * width) for channels in widths]
    total = conv(3, widths[0]) + bn(widths[0]) + conv(widths[-1], 1280, 1) + bn(1280) + linear(1280, 100)
    for k in range(17):
        hidden = widths[k] * (1 if k == 0 else 6)
        total += conv(widths[k], hidden, 1) + bn(hidden) + 9 * hidden + bn(hidden)
        total += conv(hidden, widths[k + 1], 1) + bn(widths[k + 1])
    assert count(name, 100) == total


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))])
def test_resnet_counts_follow_from_the_blocks(name, blocks):
    total, inputs = conv(3, 64) + bn(64) + linear(512, 100), 64
    for n, width in zip(blocks, (64, 128, 256, 512), strict=True):
        total += conv(inputs, width) + (2 * n - 1) * conv(width, width) + 2 * n * bn(width)
        total += (conv(inputs, width, 1) + bn(width)) * (inputs != width)
        inputs = width
    assert count(name, 100) == total


def test_bottleneck_resnet_counts_follow_from_the_blocks():
    total, inputs = conv(3, 64) + bn(64) + linear(2048, 100), 64
    for n, hidden in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        width = 4 * hidden
        total += conv(inputs, hidden, 1) + (n - 1) * conv(width, hidden, 1) + conv(inputs, width, 1) + bn(width)
        total += n * (conv(hidden, hidden) + conv(hidden, width, 1) + 2 * bn(hidden) + bn(width))
        inputs = width
    assert count("resnet50", 100) == total


@pytest.mark.parametrize(
    ("name", "g", "layers"), [("densenet121", 32, (6, 12, 24, 16)), ("densenet161", 48, (6, 12, 36, 24))]
)
def test_densenet_counts_follow_from_growth_and_layers(name, g, layers):
    channels, total = 2 * g, conv(3, 2 * g)
    for block, n in enumerate(layers):
        if block:
            total += bn(channels) + conv(channels, channels // 2, 1)
            channels //= 2
        for _ in range(n):
            total += bn(channels) + conv(channels, 4 * g, 1) + bn(4 * g) + conv(4 * g, g)
            channels += g
    assert count(name, 100) == total + bn(channels) + linear(channels, 100)


def test_shufflenetv1_counts_follow_from_the_groups():
    total, inputs = conv(3, 24, 1) + bn(24) + linear(960, 100), 24
    for n, width in [(4, 240), (8, 480), (4, 960)]:
        for block in range(n):
            made = width - inputs if block == 0 else width  # the shortcut brings the rest
            hidden = made // 4
            total += conv(inputs, hidden, 1) // (1 if inputs == 24 else 3) + bn(hidden)
            total += 9 * hidden + bn(hidden) + conv(hidden, made, 1) // 3 + bn(made)
            inputs = width
    assert count("shufflenetv1", 100) == total


def test_shufflenetv2_counts_follow_from_the_widths():
    total, inputs = conv(3, 24, 1) + bn(24) + conv(464, 1024, 1) + bn(1024) + linear(1024, 100), 24
    for n, width in [(4, 116), (8, 232), (4, 464)]:
        half = width // 2
        total += 9 * inputs + bn(inputs) + 2 * (conv(inputs, half, 1) + bn(half))  # both branches take all in
        total += 9 * half + bn(half) + conv(half, half, 1) + bn(half)
        total += (n - 1) * (2 * conv(half, half, 1) + 9 * half + 3 * bn(half))
        inputs = width
    assert count("shufflenetv2", 100) == total


def test_efficientnet_counts_follow_from_the_table():
    total, inputs, first = conv(3, 32) + bn(32) + conv(320, 1280, 1) + bn(1280) + linear(1280, 100), 32, True
    for width, n, kernel in [(16, 1, 3), (24, 2, 3), (40, 2, 5), (80, 3, 3), (112, 3, 5), (192, 4, 5), (320, 1, 3)]:
        for _ in range(n):
            hidden, squeezed = inputs if first else 6 * inputs, inputs // 4
            total += 0 if first else conv(inputs, hidden, 1) + bn(hidden)
            total += kernel**2 * hidden + bn(hidden) + linear(hidden, squeezed) + linear(squeezed, hidden)
            total += conv(hidden, width, 1) + bn(width)
            inputs, first = width, False
    assert count("efficientnet_b0", 100) == total


def test_efficientnet_lite_has_the_published_count_whatever_the_images_channels():
    assert count("efficientnet_lite0", 1000) == count("efficientnet_lite0", 1000, channels=1) == 4_652_008
    squeezes = sum(
        linear(hidden, squeezed) + linear(squeezed, hidden)
        for inputs, hidden in [(32, 32), (16, 96), *[(w, 6 * w) for w in (24, 24, 40, 40, *[80] * 3, *[112] * 3)],
                               *[(192, 1152)] * 4]
        for squeezed in [inputs // 4]
    )  # fmt: skip
    assert count("efficientnet_lite0", 100) == count("efficientnet_b0", 100) - squeezes


def test_lenet5_has_the_published_layers_at_28_pixels():
    """28 pixels become 24, 12, 12 and 6; the half network halves the filters, and the linear layers stay."""
    counts = zoo.parameter_counts(1, 10, (28, 28), ["lenet5", "lenet5_half"])
    linear_layers = linear(120, 84) + linear(84, 10)
    assert counts["lenet5"] == 82_826 == (25 * 6 + 6) + (25 * 6 * 16 + 16) + linear(16 * 36, 120) + linear_layers
    assert counts["lenet5_half"] == 46_380 == (25 * 3 + 3) + (25 * 3 * 8 + 8) + linear(8 * 36, 120) + linear_layers


@pytest.mark.parametrize(
    ("name", "widths", "hidden", "total"),
    [
        ("alexnet", (3, 48, 128, 192, 192, 128), (512, 256), 1_659_178),
        ("alexnet_half", (3, 24, 64, 96, 96, 64), (256, 128), 417_434),
    ],
)
def test_alexnet_has_the_published_layers_at_32_pixels(name, widths, hidden, total):
    kernels = (5, 5, 3, 3, 3)
    body = sum(conv(*widths[k : k + 2], kernels[k]) + widths[k + 1] + bn(widths[k + 1]) for k in range(5))
    first = linear(9 * widths[-1], hidden[0]) + bn(hidden[0])  # 32 pixels become 15, 7 and 3
    assert count(name, 10) == total == body + first + linear(*hidden) + bn(hidden[1]) + linear(hidden[1], 10)
