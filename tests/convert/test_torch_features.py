"""An octave network is a torch network: compile, export, copy, pickle, autocast, channels-last, data-parallel."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from torch import nn
from torchvision.ops import SqueezeExcitation, StochasticDepth

from octvideo import OctConv2d, OctPair, octavize
from octvideo.layers import OctGroupNorm, OctNonLocal, merge, split


class Block2d(nn.Module):
    """What image networks are made of: groups, squeeze-and-excitation, a residual sum, drop path, a concatenation."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.grouped = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.reduce = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.GroupNorm(2, 8))
        self.excite = SqueezeExcitation(8, 4)
        self.drop = StochasticDepth(0.1, "row")

    def forward(self, x):
        y = self.drop(self.excite(self.reduce(self.grouped(self.expand(x)))))
        x = F.relu(x + y)
        return torch.cat([x, y.sigmoid()], dim=1)


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.lift = nn.Conv2d(8, 8, 1)
        self.block = Block2d()
        self.pool = nn.Sequential(nn.BatchNorm2d(16), nn.MaxPool2d(3, 2, 1))
        self.last = nn.Conv2d(16, 8, 2, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.last(self.pool(self.block(self.lift(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class Videos(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.block = nn.Sequential(nn.Conv3d(8, 12, 3, 1, 1, bias=False), nn.BatchNorm3d(12), nn.ReLU())
        self.attend = create_nonlocal(dim_in=12, dim_inner=8, pool_size=(1, 2, 2))
        self.pool = nn.MaxPool3d(2)
        self.last = nn.Conv3d(12, 8, (3, 1, 1), (2, 1, 1), (1, 0, 0))
        self.head = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, x):
        return self.head(self.last(self.pool(self.attend(self.block(self.stem(x))))))


NETWORKS = {
    "images": (Images, (3, 27, 34), "spatial"),
    "videos": (Videos, (3, 5, 17, 22), "spatiotemporal"),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    build, shape, octave = NETWORKS[request.param]
    model = octavize(build(), 0.25, octave)
    return model.eval(), torch.randn(2, *shape)


def test_the_networks_hold_what_they_should():
    images, videos = octavize(Images(), 0.25), octavize(Videos(), 0.25)
    assert images.block.grouped[0].out_segments == ((3, 1),) * 4
    assert isinstance(images.block.reduce[1], OctGroupNorm)
    assert images.last.in_low == 4
    assert isinstance(videos.attend, OctNonLocal)
    keys = Images().state_dict().keys()
    assert images.state_dict().keys() == keys


def test_compiled_equals_eager(network):
    model, x = network
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    model.train()
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0
    eager = copy.deepcopy(model)
    compiled(x).square().sum().backward()
    eager(x).square().sum().backward()
    for (name, a), (_, b) in zip(model.named_parameters(), eager.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(dict(model.named_buffers()), dict(eager.named_buffers()))


def test_exported_equals_eager(network):
    model, x = network
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    stricts = (False,) if torch.__version__ < "2.9" else (False, True)  # 2.8 keeps torch's own modules out of its trace
    for strict in stricts:
        program = torch.export.export(model, (x,), dynamic_shapes=(batch,), strict=strict)
        more = torch.randn(3, *x.shape[1:])
        torch.testing.assert_close(program.module()(more), model(more))


def test_a_layer_whose_input_and_output_are_pairs_is_exported():
    conv = OctConv2d(8, 12, 3, 2, 1, alpha_in=0.25, alpha_out=0.5).eval()
    pair = split(torch.randn(2, 8, 9, 9), 0.25)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(conv, (pair,)), buffer)
    buffer.seek(0)
    out = torch.export.load(buffer).module()(pair)
    assert isinstance(out, OctPair)
    torch.testing.assert_close(merge(out), merge(conv(pair)))


def test_copies_and_pickles_compute_the_same(network):
    model, x = network
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    doubled = {k: v * 2 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    other = copy.deepcopy(model)
    other.load_state_dict(doubled)
    assert torch.equal(torch.func.functional_call(model, doubled, (x,)), other(x))


def test_channels_last_and_half_precision(network):
    model, x = network
    expected = model(x)
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    torch.testing.assert_close(model.to(memory_format=layout)(x.to(memory_format=layout)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).float(), expected, rtol=0.05, atol=0.05)
    half = copy.deepcopy(model).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


def test_gradients_per_sample(network):
    """torch.func: the gradients of single samples add up to that of the batch."""
    model, x = network
    parameters = {k: v.detach() for k, v in model.named_parameters()}

    def loss(p, sample):
        return torch.func.functional_call(model, p, (sample[None],)).square().sum()

    each = [torch.func.grad(loss)(parameters, sample) for sample in x]
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(sum(g[name] for g in each), parameter.grad)


def test_data_parallel_gives_the_gradients_of_the_plain_network(network, tmp_path):
    model, x = network
    plain = copy.deepcopy(model)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        nn.parallel.DistributedDataParallel(model)(x).square().sum().backward()
    finally:
        dist.destroy_process_group()
    plain(x).square().sum().backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
