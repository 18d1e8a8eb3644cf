"""Alpha 0 is the peer's own network, bit for bit, with the peer's weights."""

import pytest
import torch
from pytorchvideo.models import hub
from pytorchvideo.models.slowfast import create_slowfast
from torch import nn
from torchvision import models
from torchvision.models import video
from torchvision.models.resnet import Bottleneck

from octvideo.models import BUILDERS, MobileNetV1, NonLocalStage, SlowFast, build_model, i3d_r50, i3d_r50_nln
from octvideo.models.build import finish

CLIP, IMAGE = (5, 49, 64), (65, 96)
PEERS = {
    "c2d_r50": (lambda: hub.c2d_r50(), CLIP),
    "i3d_r50": (lambda: hub.i3d_r50(), CLIP),
    "slow_r50": (lambda: hub.slow_r50(), CLIP),
    "slowfast_r50_8x8": (lambda: hub.slowfast_r50(), (16, 49, 64)),
    "slowfast_r50_4x16": (
        lambda: create_slowfast(
            slowfast_fusion_conv_kernel_size=(5, 1, 1),
            slowfast_fusion_conv_stride=(8, 1, 1),
            head_pool_kernel_sizes=((4, 7, 7), (32, 7, 7)),
        ),
        (16, 49, 64),
    ),
    "x3d_xs": (lambda: hub.x3d_xs(head_activation=None, inner_act=nn.SiLU), CLIP),
    "x3d_l": (lambda: hub.x3d_l(head_activation=None, inner_act=nn.SiLU), CLIP),
    "r2plus1d_r50": (lambda: hub.r2plus1d_r50(head_activation=None), CLIP),
    "csn_r101": (lambda: hub.csn_r101(), CLIP),
    "s3d": (lambda: video.s3d(), (16, 49, 64)),
    "r3d_18": (lambda: video.r3d_18(), CLIP),
    "mc3_18": (lambda: video.mc3_18(), CLIP),
    "r2plus1d_18": (lambda: video.r2plus1d_18(), CLIP),
    "resnet18": (lambda: models.resnet18(), IMAGE),
    "resnet26": (lambda: models.ResNet(Bottleneck, [2, 2, 2, 2]), IMAGE),
    "resnet50": (lambda: models.resnet50(), IMAGE),
    "resnext50_32x4d": (lambda: models.resnext50_32x4d(), IMAGE),
    "densenet121": (lambda: models.densenet121(), IMAGE),
    "mobilenet_v2": (lambda: models.mobilenet_v2(), IMAGE),
}


def randomize_norms(net):
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return net


def pool_all(net):
    """Let the head take maps of any size."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AvgPool3d):
                setattr(parent, name, nn.AdaptiveAvgPool3d(1))
    return net.eval()


def pooled_windows(net):
    return [tuple(map(int, m.kernel_size)) for m in net.modules() if isinstance(m, nn.AvgPool3d)]


@pytest.mark.parametrize("name", PEERS)
def test_alpha_zero_equals_the_peer_with_the_same_weights(name):
    build_peer, size = PEERS[name]
    peer, ours = randomize_norms(build_peer()), build_model(name, num_classes=400 if name in BUILDERS else 1000)
    ours.load_state_dict(peer.state_dict())
    assert pooled_windows(ours) == pooled_windows(peer)
    x = torch.randn(2, 3, *size)
    peer_input = x
    if isinstance(ours, SlowFast):
        index = torch.linspace(0, size[0] - 1, size[0] // ours.frame_ratio).long()  # PySlowFast's slow frames
        peer_input = [x[:, :, index], x]
    with torch.no_grad():
        assert torch.equal(pool_all(ours)(x), pool_all(peer)(peer_input))


def test_x3d_gives_the_logits_of_pytorchvideos_probabilities():
    """Its own network ends in a softmax, and its swish is rounded otherwise."""
    peer, ours = randomize_norms(hub.x3d_xs()), build_model("x3d_xs", num_classes=400)
    ours.load_state_dict(peer.state_dict())
    x = torch.randn(1, 3, 4, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x).softmax(1), peer.eval()(x))


def test_non_local_blocks_stand_behind_every_second_block_of_res3_and_res4():
    """With the gain that they start with they add nothing: the network is I3D, whose names it keeps."""
    plain, ours = randomize_norms(i3d_r50(num_classes=5)), i3d_r50_nln(num_classes=5)
    missing, unexpected = ours.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    blocks = {name.rsplit(".", 2)[0] for name in missing}
    assert blocks == {f"blocks.3.non_local.{i}" for i in (1, 3)} | {f"blocks.4.non_local.{i}" for i in (1, 3, 5)}
    x = torch.randn(1, 3, 8, 49, 64)
    with torch.no_grad():
        expected = pool_all(plain)(x)
        assert torch.equal(pool_all(ours)(x), expected)
        assert not torch.equal(randomize_norms(ours)(x), expected)


def test_a_non_local_block_attends_over_pooled_maps():
    """Against the formula of Wang et al. 2018, section 3: one softmax over positions for each position."""
    stage = i3d_r50_nln(num_classes=5).blocks[3]
    assert isinstance(stage, NonLocalStage)
    block = randomize_norms(stage.non_local["1"]).double().eval()
    x = torch.randn(1, 512, 2, 4, 6, dtype=torch.float64)
    pooled = nn.functional.max_pool3d(x, (1, 2, 2))

    def project(conv, x):
        return conv.weight.flatten(1) @ x[0].flatten(1) + conv.bias[:, None]

    with torch.no_grad():
        similarity = project(block.conv_theta, x).T @ project(block.conv_phi, pooled) / 256**0.5
        response = project(block.conv_g, pooled) @ similarity.softmax(1).T
        expected = x + block.norm(project(block.conv_out, response[None]).view_as(x))
        torch.testing.assert_close(block(x), expected)


def test_mobilenet_v1_against_its_definition():
    """Howard et al. 2017, table 1, written as a list of (stride, channels)."""
    net = randomize_norms(MobileNetV1(num_classes=7, width=0.5, dropout=0.0)).double().eval()
    rows = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024)]
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    strides = [2, *(s for stride, _ in rows for s in (stride, 1))]
    assert [c.out_channels for c in convs[2::2]] == [channels // 2 for _, channels in rows]
    image = x = torch.randn(2, 3, 65, 70, dtype=torch.float64)
    with torch.no_grad():
        for conv, norm, stride in zip(convs, norms, strides, strict=True):
            kernel = conv.weight.shape[-1]
            x = nn.functional.conv2d(
                x, conv.weight, None, stride, kernel // 2, groups=x.shape[1] if conv.groups > 1 else 1
            )
            x = norm(x).relu()
        torch.testing.assert_close(net(image), net.classifier(x.mean((2, 3))))


def test_squeeze_and_excitation_scales_before_the_sum():
    """Hu et al. 2018, equations 2 to 4, on the residual of a plain bottleneck block with the same weights."""
    block = randomize_norms(build_model("se_resnet50", num_classes=5).layer2[1]).double().eval()
    plain = Bottleneck(512, 128).double().eval()
    plain.load_state_dict(block.state_dict(), strict=False)
    x = torch.rand(2, 512, 5, 6, dtype=torch.float64)  # nothing negative, so that the residual can be read off
    residual = {}
    plain.bn3.register_forward_hook(lambda module, args, out: residual.update(value=out.clone()))
    with torch.no_grad():
        plain(x)
        squeezed = residual["value"].mean((2, 3))
        hidden = (squeezed @ block.se.fc1.weight.flatten(1).T + block.se.fc1.bias).relu()
        gate = (hidden @ block.se.fc2.weight.flatten(1).T + block.se.fc2.bias).sigmoid()
        torch.testing.assert_close(block(x), (x + residual["value"] * gate[:, :, None, None]).relu())
    assert hidden.shape == (2, 512 // 16)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "r3d_18", "s3d", "x3d_xs"])
def test_dropout_reaches_every_family(name):
    """At rate 1 the last layer sees nothing, whatever the input."""
    net = pool_all(build_model(name, num_classes=5, dropout=1.0)).train()
    size = (16, 33, 33) if name in BUILDERS else (33, 33)
    with torch.no_grad():
        a, b = net(torch.randn(2, 3, *size))
    assert torch.equal(a, b)


def test_finish_leaves_plain_integers():
    """PyTorchVideo's numpy integers, also in the windows of pooling layers."""
    net = hub.x3d_xs()
    assert any(type(n) is not int for n in net.blocks[-1].pool.pool.kernel_size)
    for module in finish(net, 0, "spatial").modules():
        for field in ("kernel_size", "stride", "padding"):
            values = getattr(module, field, 1)
            assert all(type(n) is int for n in (values if isinstance(values, tuple) else [values]))
