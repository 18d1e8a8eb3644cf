"""octavize on other people's networks, as they build them: the dense weights keep their meaning in every one."""

import pytest
import torch
import torchvision
from pytorchvideo.models import create_slowfast
from pytorchvideo.models.csn import create_csn
from pytorchvideo.models.r2plus1d import create_r2plus1d
from pytorchvideo.models.x3d import create_x3d
from torch import nn

from octvideo import deoctavize, octavize

tv = torchvision.models
IMAGES = {
    "resnext50": lambda: tv.resnext50_32x4d(num_classes=5),
    "densenet121": lambda: tv.densenet121(num_classes=5),
    "mobilenet_v2": lambda: tv.mobilenet_v2(num_classes=5),
    "mobilenet_v3": lambda: tv.mobilenet_v3_small(num_classes=5),
    "efficientnet": lambda: tv.efficientnet_b0(num_classes=5),
    "regnet": lambda: tv.regnet_y_400mf(num_classes=5),
    "shufflenet": lambda: tv.shufflenet_v2_x0_5(num_classes=5),
    "googlenet": lambda: tv.googlenet(num_classes=5, aux_logits=False, init_weights=False),
    "squeezenet": lambda: tv.squeezenet1_1(num_classes=5),
    "vgg": lambda: tv.vgg11_bn(num_classes=5),
    "mnasnet": lambda: tv.mnasnet0_5(num_classes=5),
}
VIDEOS = {
    "s3d": lambda: tv.video.s3d(num_classes=5),
    "x3d": lambda: create_x3d(input_clip_length=4, input_crop_size=64, model_num_class=5),
    "r2plus1d": lambda: create_r2plus1d(model_num_class=5),
    "csn": lambda: create_csn(model_num_class=5),
    "slowfast": lambda: create_slowfast(model_num_class=5),
}


def made_ready(model):
    """In float64, with statistics of its own, every block awake, any size of map, and nothing lost at the borders."""
    torch.manual_seed(2)
    for parent in list(model.double().eval().modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.AvgPool3d) and child.stride in (1, (1, 1, 1)):
                setattr(parent, name, nn.AdaptiveAvgPool3d(1))
        if isinstance(parent, nn.Conv2d | nn.Conv3d):
            parent.padding_mode = "replicate"
            parent._reversed_padding_repeated_twice = [p for q in reversed(parent.padding) for p in (int(q), int(q))]
        elif isinstance(parent, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(parent.weight, 0.5, 1.5)
            nn.init.uniform_(parent.running_mean, -0.1, 0.1)
            nn.init.uniform_(parent.running_var, 0.5, 2)
    return model


def assert_octave_keeps_the_dense_meaning(model, x, example):
    constant = [t[(..., *(slice(1),) * (t.dim() - 2))].expand_as(t) for t in x]
    as_input = (lambda t: t[0]) if len(x) == 1 else list
    with torch.no_grad():
        expected, varied = model(as_input(constant)), model(as_input(x))
    keys, kinds = {k: v.shape for k, v in model.state_dict().items()}, [type(m) for m in model.modules()]
    octavize(model, 0.25, example=as_input(example) if example else None)
    assert {k: v.shape for k, v in model.state_dict().items()} == keys
    with torch.no_grad():
        torch.testing.assert_close(model(as_input(constant)), expected)
        assert not torch.equal(model(as_input(x)), varied)
    model(as_input(x)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    deoctavize(model)
    assert [type(m) for m in model.modules()] == kinds
    with torch.no_grad():
        assert torch.equal(model(as_input(x)), varied)


@pytest.mark.parametrize("name", IMAGES)
def test_images(name):
    assert_octave_keeps_the_dense_meaning(made_ready(IMAGES[name]()), [torch.randn(2, 3, 67, 64).double()], None)


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(name):
    clip = torch.randn(1, 3, 8, 64, 67).double()
    x = [clip[:, :, ::4], clip] if name == "slowfast" else [clip]
    example = [t[:, :, :, :33, :33] for t in x] if name == "slowfast" else None  # its lists cannot be traced
    assert_octave_keeps_the_dense_meaning(made_ready(VIDEOS[name]()), x, example)
