"""The zoo: shapes, gradients, the normalising first layer, a user's own network, and what is refused."""

import copy
import functools
import sys

import pytest
import torch
from torch import nn

from cgankd.core.errors import UserError
from cgankd.nets import registry, zoo
from cgankd.nets.families.densenet import DenseNet
from cgankd.nets.families.resnet import Bottleneck, ResNet
from cgankd.nets.layers import channel_shuffle

torch.set_num_threads(1)

TINY = {  # of families whose smallest member is large
    "densenet_tiny": functools.partial(DenseNet, growth=4, layers=(2, 3, 2, 2)),
    "resnet_tiny": functools.partial(ResNet, block=Bottleneck, blocks=(2, 2, 1, 1), widths=(32, 32, 64, 64)),
}


def new(name, channels=3, outputs=10, size=(16, 16)):
    torch.manual_seed(0)
    return TINY[name](channels, outputs, size) if name in TINY else zoo.create(name, channels, outputs, size)


def test_resnet_tensor_names_are_those_of_published_checkpoints():
    names = set(new("resnet14").state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.1.conv2.weight", "layer2.0.downsample.0.weight",
            "layer2.0.downsample.1.bias", "layer3.1.bn2.weight", "fc.bias"} <= names  # fmt: skip
    assert not any(name.startswith("layer1.0.downsample") for name in names)


SMALL_OF_EACH_FAMILY = [
    "resnet8", "resnet8x4", "wrn_16_1", "vgg8", "mobilenetv2", "cnn8", "cnn16_grid", "shufflenetv1",
    "shufflenetv2", "efficientnet_b0", "efficientnet_lite0", "lenet5", "alexnet_half", *TINY,
]  # fmt: skip


@pytest.mark.parametrize(("channels", "size"), [(3, (32, 32)), (1, (49, 33)), (3, (16, 40)), (1, (64, 64))])
@pytest.mark.parametrize("name", SMALL_OF_EACH_FAMILY)
def test_outputs_for_sizes_and_numbers_of_channels(name, channels, size):
    network = new(name, channels, 7, size)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        for training in (True, False):
            outputs = network.train(training)(images)
            assert outputs.shape == (2, 7)
            assert outputs.isfinite().all()


LARGEST = {"densenet161", "resnet34", "resnet50", "vgg16", "vgg19"}  # these repeat what others have


@pytest.mark.parametrize("name", zoo.names())
def test_every_network_runs_and_trains_at_the_smallest_size_with_a_scalar_output(name):
    network, images = new(name, 1, 1), torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert network.eval()(images).shape == (2, 1)
    if name in LARGEST:
        return
    network.train()(images).sum().backward()
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert [key for key, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []


@pytest.mark.parametrize("name", SMALL_OF_EACH_FAMILY)
def test_channels_last_gives_the_same_outputs(name):
    network, images = new(name, size=(20, 16)).eval(), torch.rand(2, 3, 20, 16)
    with torch.no_grad():
        expected = network(images)
        last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert torch.allclose(last, expected, atol=1e-4, rtol=1e-4)


def test_a_channel_shuffle_takes_one_channel_of_each_group_in_turn():
    x = torch.arange(6.0).view(1, 6, 1, 1) + torch.rand(2, 1, 3, 5)
    for layout in (torch.contiguous_format, torch.channels_last):
        shuffled = channel_shuffle(x.to(memory_format=layout), groups=3)
        assert torch.equal(shuffled, x[:, [0, 2, 4, 1, 3, 5]])
        assert shuffled.is_contiguous(memory_format=torch.channels_last)


def test_efficientnet_leaves_blocks_out_in_training_only_and_keeps_the_mean():
    torch.manual_seed(0)
    block = new("efficientnet_b0").blocks[5][3]  # the 15th of 16 blocks has 14/16 of the last one's probability
    assert block.drop == pytest.approx(0.2 * 14 / 16)
    block.conv = nn.Identity()
    x = torch.ones(20_000, 192, 1, 1)
    assert torch.equal(block.eval()(x), 2 * x)
    out = block.train()(x)
    kept = out[:, 0, 0, 0] != 1
    assert torch.allclose(out[kept], 1 + x[kept] / (1 - block.drop))
    assert kept.float().mean().item() == pytest.approx(1 - block.drop, abs=0.012)  # 4.5 standard deviations
    assert (out == out[:, :1]).all()  # all of an image or nothing of it


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("resnet8", "layer3", (64, 8, 8)), ("wrn_16_1", "block3", (64, 8, 8)), ("vgg8", "block4", (512, 4, 4)),
        ("mobilenetv2", "blocks", (160, 2, 2)), ("cnn8", "layer3", (32, 4, 4)),
        ("shufflenetv1", "layer3", (960, 4, 4)), ("shufflenetv2", "layer3", (464, 4, 4)),
        ("efficientnet_b0", "blocks", (320, 2, 2)), ("resnet_tiny", "layer4", (64, 4, 4)),
        ("densenet_tiny", "bn", (17, 4, 4)), ("lenet5", "layer2", (16, 14, 14)), ("alexnet_half", "bn5", (64, 3, 3)),
    ],
)  # fmt: skip
def test_the_last_map_at_32_pixels(name, layer, shape):
    network = new(name, size=(32, 32)).eval()
    seen = []
    network.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.append(output.shape))
    with torch.no_grad():
        network(torch.rand(2, 3, 32, 32))
    assert seen == [(2, *shape)]


def test_vgg_pools_once_more_from_64_pixels_on():
    narrow, wide = new("vgg8", size=(63, 90)), new("vgg8", size=(64, 64))
    assert isinstance(narrow.pool3, nn.Identity)
    assert isinstance(wide.pool3, nn.MaxPool2d)
    assert narrow.state_dict().keys() == wide.state_dict().keys()


def test_a_grid_knows_where_and_a_global_mean_does_not():
    images = torch.zeros(2, 1, 144, 144)
    images[0, :, 48, 48] = 1.0  # what sees a dot, 21 pixels around it, sees no border, another 21 away
    images[1, :, 96, 96] = 1.0
    with torch.no_grad():
        blind = new("cnn16", 1).eval()(images)
        seeing = new("cnn16_grid", 1).eval()(images)
    assert torch.allclose(blind[0], blind[1], atol=1e-5)
    assert (seeing[0] - seeing[1]).abs().max() > 100 * (blind[0] - blind[1]).abs().max()


@pytest.mark.parametrize("name", SMALL_OF_EACH_FAMILY)
def test_the_gradient_reaches_every_parameter(name):
    network = new(name, 3, 5, (32, 32))
    weights = torch.randn(4, 5)  # a plain sum would cancel where outputs are normalised
    (network(torch.rand(4, 3, 32, 32)) * weights).sum().backward()
    without = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    if name == "vgg8":  # batch normalisation takes a constant out again, so these biases have rounding error at most
        without = [key for key in without if not (key.startswith("block") and key.endswith(".0.bias"))]
    assert without == []


@pytest.mark.parametrize("name", SMALL_OF_EACH_FAMILY)
def test_first_weights_follow_the_seed_and_their_rule(name):
    network = new(name, 3, 10, (32, 32))
    again = new(name, 3, 10, (32, 32)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            variance = 2 / fan_out  # He's rule; but the ShuffleNets', torch's uniform one
            if name.startswith("shufflenet"):
                variance = 1 / (3 * module.weight[0].numel())
            assert module.weight.std().item() == pytest.approx(variance**0.5, rel=0.1)
            assert module.bias is None or not module.bias.any()


def test_the_default_normalisation_is_half_and_a_quarter():
    layer = zoo.Normalise(3)
    assert torch.equal(layer(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)).flatten(), torch.tensor([-2.0, 0, 2]))


@pytest.mark.parametrize("name", [name for name in SMALL_OF_EACH_FAMILY if name != "efficientnet_lite0"])
def test_each_network_normalises_first(name):  # but the one whose normalisation is its weights' own
    images = torch.rand(4, 3, 32, 32)
    mean, std = torch.tensor([0.1, 0.4, 0.7]), torch.tensor([0.2, 0.3, 0.5])
    network = new(
        name, size=(32, 32)
    )  # in training mode: with untrained statistics a deep network's outputs hardly move
    assert zoo.fix_normalisation(network, mean, std)
    plain = copy.deepcopy(network)
    plain.normalise = nn.Identity()

    @torch.no_grad()
    def outputs(network, images):
        torch.manual_seed(1)  # of dropout
        return network(images)

    by_hand = outputs(plain, (images - mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(outputs(network, images), by_hand, atol=1e-5)
    assert not torch.allclose(outputs(network, images), outputs(plain, images), atol=1e-3)


def test_normalisation_travels_with_the_weights_and_has_a_floor():
    network = new("cnn8", 1)
    zoo.fix_normalisation(network, torch.tensor([0.25]), torch.tensor([0.0]))
    other = new("cnn8", 1)
    other.load_state_dict(network.state_dict())
    assert other.normalise.mean.item() == 0.25
    assert other.normalise.std.item() == pytest.approx(1e-3)
    assert not any(name.startswith("normalise") for name, _ in network.named_parameters())


def test_constants_of_a_normalisation_are_not_set_and_not_stored():
    layer = zoo.Normalise(2, (torch.tensor([0.1, 0.2]), torch.tensor([0.5, 0.25])))
    assert not zoo.fix_normalisation(layer, torch.zeros(2), torch.ones(2))
    assert not layer.state_dict()
    assert torch.allclose(layer(torch.full((1, 2, 1, 1), 0.7)).flatten(), torch.tensor([1.2, 2.0]))


def test_normalisation_of_a_network_from_elsewhere_and_of_wrong_channels():
    assert not zoo.fix_normalisation(nn.Linear(2, 2), torch.zeros(3), torch.ones(3))
    network = new("cnn8", 3)
    with pytest.raises(UserError, match=r"normalises 3 channel\(s\), but mean is \[1\].*allowed: \[3\] for both"):
        zoo.fix_normalisation(network, torch.zeros(1), torch.ones(1))
    assert (network.normalise.mean == 0.5).all()


def test_unknown_names_are_answered_with_a_near_one_and_all_allowed():
    message = r"^network 'resnt8' is not known \(did you mean 'resnet8'\?\); allowed: alexnet, .*cnn8, .*wrn_40_2"
    with pytest.raises(UserError, match=message):
        zoo.create("resnt8", 3, 10, (32, 32))
    with pytest.raises(UserError, match=r"^network 'zzz' is not known; allowed: alexnet"):
        zoo.create("zzz", 3, 10, (32, 32))


def test_a_missing_timm_gives_a_sentence_and_the_names_do_without(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^network 'timm/resnet18' needs timm: pip install 'cgankd\[timm\]'$"):
        zoo.create("timm/resnet18", 3, 10, (32, 32))
    assert not any(name.startswith("timm") for name in zoo.names())


def test_images_below_16_pixels_are_refused():
    with pytest.raises(UserError, match="images are 32x15 pixels; allowed: 16 or more on each side"):
        zoo.create("resnet8", 3, 10, (32, 15))


def test_a_registered_name_is_built_with_its_fixed_arguments_and_cannot_be_taken_twice(monkeypatch):
    monkeypatch.setattr(registry, "BUILDERS", dict(registry.BUILDERS))
    monkeypatch.setattr(zoo, "BUILDERS", registry.BUILDERS)

    @zoo.register("flat", extra=2)
    def flat(in_channels, num_outputs, image_size, extra):
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], num_outputs * extra))

    assert "flat" in zoo.names()
    assert zoo.create("flat", 1, 3, (16, 20))(torch.rand(2, 1, 16, 20)).shape == (2, 6)
    with pytest.raises(ValueError, match="'flat' is registered already"):
        zoo.register("flat")


USERS_MODULE = """
import torch
from torch import nn

not_a_function = 3

def good(in_channels, num_outputs, image_size):
    width = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(width, num_outputs))

def lazy(in_channels, num_outputs, image_size):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_outputs))

def wrong_arguments(channels):
    return None

def wrong_return(in_channels, num_outputs, image_size):
    return "network"

def wrong_outputs(in_channels, num_outputs, image_size):
    return nn.Flatten()

def two_outputs(in_channels, num_outputs, image_size):
    class Two(nn.Module):
        def forward(self, images):
            return images, images
    return Two()

def fails_to_run(in_channels, num_outputs, image_size):
    return nn.Linear(5, num_outputs)
"""


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    (tmp_path / "users_nets_of_this_test.py").write_text(USERS_MODULE)
    (tmp_path / "users_broken_module.py").write_text("1 / 0")
    (tmp_path / "users_script.py").write_text("import sys; sys.exit('needs arguments')")
    monkeypatch.syspath_prepend(tmp_path)
    return "users_nets_of_this_test"


@pytest.mark.parametrize("function", ["good", "lazy"])
def test_a_users_network_is_built_by_its_function(users_module, function):
    network = zoo.create(f"{users_module}:{function}", 3, 4, (16, 20))
    assert network.training
    assert network(torch.rand(2, 3, 16, 20)).shape == (2, 4)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", r"has no function 'absent'$"),
        ("not_a_function", r"has no function 'not_a_function'$"),
        ("wrong_arguments", r"calling it with in_channels=3, .* failed \(TypeError: .*unexpected keyword"),
        ("wrong_return", r"it returned str; needed: a torch\.nn\.Module$"),
        (
            "wrong_outputs",
            r"images \[2, 3, 16, 16\] .*gives \[2, 768\]; allowed: .* \[2, 4\], because the data has 4 classes$",
        ),
        ("two_outputs", r"it gives tuple; allowed: one tensor \[2, 4\], the outputs$"),
        ("fails_to_run", r"it fails on images \[2, 3, 16, 16\] \(RuntimeError: "),
    ],
)
def test_a_users_function_that_is_no_good_gives_a_sentence(users_module, function, message):
    with pytest.raises(UserError, match=f"^network '{users_module}:{function}': .*{message}"):
        zoo.create(f"{users_module}:{function}", 3, 4, (16, 16))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("no_such_module_anywhere", "ModuleNotFoundError"),
        ("users_broken_module", "ZeroDivisionError"),
        ("users_script", "SystemExit: needs arguments"),
        ("", "Value"),
    ],
)
def test_a_users_module_that_cannot_be_imported_gives_a_sentence(users_module, module, reason):
    with pytest.raises(UserError, match=rf"module '{module}' can't be imported \({reason}.*PYTHONPATH"):
        zoo.create(f"{module}:make", 3, 4, (16, 16))
