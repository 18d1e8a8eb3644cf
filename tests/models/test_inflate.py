"""Image weights in video networks: a video that stands still gives the image network's output."""

import pytest
import torch
import torchvision
from torch import nn

from octvideo import octavize
from octvideo.layers import OctConv3d
from octvideo.models import build_model, inflate, load_weights, save_weights

STILL_FRAMES = 4


@pytest.fixture(scope="module")
def image_network():
    """torchvision's ResNet-50 with 7 classes and norms that are no identity, in float64."""
    torch.manual_seed(0)
    net = torchvision.models.resnet50(num_classes=7)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.double().eval()


@pytest.fixture(scope="module")
def image_file(image_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("torchvision") / "resnet50.pth"
    torch.save(image_network.state_dict(), path)
    return path


def video_network(name, path, inflation, alpha=0.0):
    net = build_model(name, num_classes=7, alpha=alpha).double().eval()
    load_weights(net, path, inflation=inflation)
    net.blocks[-1].pool = nn.AdaptiveAvgPool3d(1)
    return net


def pad_time_by_repetition(net):
    """Copies of the outer frames in place of zeros; height and width stay padded with zeros."""

    def pad(module, inputs):
        frames = module.kernel_size[0] // 2
        return nn.functional.pad(inputs[0], (0, 0, 0, 0, frames, frames), mode="replicate")

    for module in net.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
            module.padding = (0, *module.padding[1:])
            module.register_forward_pre_hook(pad)


def frames_before_head(net, clip):
    """(N, C, T, H, W) maps of every block up to the head."""
    for block in net.blocks[:-1]:
        clip = block(clip)
    return clip


def still_clip(image):
    return image.unsqueeze(2).expand(-1, -1, STILL_FRAMES, -1, -1)


@pytest.mark.parametrize(
    ("name", "inflation"),
    [("c2d_r50", "average"), ("c2d_r50", "centre"), ("i3d_r50", "centre"), ("slow_r50", "centre")],
)
def test_a_still_video_gives_the_images_logits(name, inflation, image_network, image_file):
    """Also the strides (on the 3x3 convolution in both) and the first pooling agree, on even and odd sizes."""
    net = video_network(name, image_file, inflation)
    for size in ((64, 64), (75, 90)):
        image = torch.randn(1, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(net(still_clip(image)), image_network(image), rtol=0, atol=1e-12)


def test_average_inflation_keeps_every_frame_where_time_is_padded_by_repetition(image_network, image_file):
    net = video_network("i3d_r50", image_file, "average")
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    backbone = nn.Sequential(*list(image_network.children())[:-2])
    with torch.no_grad():
        features = backbone(image)
        with_zeros = frames_before_head(net, still_clip(image))
        pad_time_by_repetition(net)
        repeated = frames_before_head(net, still_clip(image))
    for frame in repeated.unbind(2):
        torch.testing.assert_close(frame, features, rtol=0, atol=1e-12)
    assert (with_zeros[:, :, 0] - features).abs().max() > 1e-3  # what the padding with zeros loses


def test_an_octave_image_network_becomes_the_octave_video_network(image_network, image_file):
    octave_image = octavize(torchvision.models.resnet50(num_classes=7), 0.25).double().eval()
    load_weights(octave_image, image_file)
    net = video_network("i3d_r50", image_file, "centre", alpha=0.25)
    assert sum(isinstance(module, OctConv3d) for module in net.modules()) > 40
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        logits = net(still_clip(image))
        torch.testing.assert_close(logits, octave_image(image), rtol=0, atol=1e-12)
        assert (logits - image_network(image)).abs().max() > 1e-3  # an octave network is another function


def test_kernels():
    net = nn.Conv3d(2, 3, (5, 3, 3))
    image_kernel = torch.randn(3, 2, 3, 3)
    given = {"weight": image_kernel, "bias": torch.randn(3)}
    average = inflate(given, net)
    torch.testing.assert_close(average["weight"].sum(2), image_kernel)
    assert torch.equal(average["weight"][:, :, 0], average["weight"][:, :, 4])
    assert average["bias"] is given["bias"]
    centre = inflate(given, net, "centre")["weight"]
    assert torch.equal(centre[:, :, 2], image_kernel)
    assert centre[:, :, [0, 1, 3, 4]].count_nonzero() == 0
    with pytest.raises(ValueError, match="inflation must be 'average' or 'centre'; got 'mean'"):
        inflate(given, net, "mean")


def test_resnet101_and_a_network_of_another_depth(tmp_path):
    with torch.device("meta"):
        given = torchvision.models.resnet101().state_dict()
        own = build_model("i3d_r101", num_classes=1000)
    assert {k: v.shape for k, v in inflate(given, own).items()} == {k: v.shape for k, v in own.state_dict().items()}
    save_weights(torchvision.models.resnet18(), tmp_path / "resnet18.pt")
    with pytest.raises(
        ValueError, match=r"resnet18.pt does not fit the network: 165 missing: .*, and 157 more; 25 of another shape: "
    ):
        load_weights(build_model("c2d_r50", num_classes=3), tmp_path / "resnet18.pt")


def test_pyslowfast_names_on_image_weights(image_network, image_file, tmp_path):
    """An image network of PySlowFast has its video names and 2-D kernels."""
    names = {"conv1": "s1.pathway0_stem.conv", "bn1": "s1.pathway0_stem.bn", "fc": "head.projection"}
    inner = {"downsample.0": "branch1", "downsample.1": "branch1_bn"}
    for number, letter in enumerate("abc", 1):
        inner |= {f"conv{number}": f"branch2.{letter}", f"bn{number}": f"branch2.{letter}_bn"}
    weights = {}
    for name, value in image_network.state_dict().items():
        module, _, kind = name.rpartition(".")
        if module.startswith("layer"):
            stage, block, rest = module.removeprefix("layer").split(".", 2)
            module = f"s{int(stage) + 1}.pathway0_res{block}.{inner[rest]}"
        weights[f"{names.get(module, module)}.{kind}"] = value
    torch.save({"model_state": weights}, tmp_path / "R50_IN1K.pyth")
    ours = video_network("i3d_r50", tmp_path / "R50_IN1K.pyth", "average").state_dict()
    expected = video_network("i3d_r50", image_file, "average").state_dict()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
