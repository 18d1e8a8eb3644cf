"""What a fast network's convolutions have to do, against counts by hand."""

import contextlib

import pytest
import torch
from torch import nn

from octvideo import octavize
from octvideo.analysis import count_macs
from octvideo.kernels import library
from octvideo.layers import OctConv3d
from octvideo.runtime import optimize
from octvideo.runtime.fused import FusedConv
from octvideo.runtime.moves import Moves
from octvideo.runtime.tiles import TiledConv, tiles_take
from octvideo.runtime.work import count_work

POINTWISE = Moves((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1))


@pytest.fixture(autouse=True)
def kernels():
    if not all(tiles_take(dtype, 4, POINTWISE) for dtype in (torch.float32, torch.bfloat16)):
        pytest.skip("no kernel for this processor")


class Residual(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.first = nn.Conv3d(channels, hidden, (3, 1, 1), padding=(1, 0, 0))
        self.last = nn.Conv3d(hidden, channels, 1)

    def forward(self, x):
        return (self.last(self.first(x).relu()) + x).relu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_instructions_are_full(dtype):
    x = torch.randn(2, 64, 4, 4, 8)  # 256 places
    network = Residual(64, 32).eval()
    work = count_work(optimize(network, x, dtype=dtype), x)
    assert work.executed_macs == len(x) * count_macs(network, x[:1]).macs
    elements = 256 * (64 + 32) + 256 * (32 + 64 + 64)  # input and output, the second time with a summand
    assert work.map_bytes == elements * dtype.itemsize


def test_what_instructions_pad():
    x = torch.randn(1, 10, 1, 1, 5)
    network = nn.Sequential(nn.Conv3d(10, 18, 1), nn.ReLU()).eval()
    work = count_work(optimize(network, x, dtype=torch.bfloat16), x)
    kernels = library.library(torch.bfloat16)
    executed = 16 * 32 * 32 if library._has_matrices() else 5 * kernels.padded_out_channels(18) * 10
    assert work == (executed, 5 * (10 + 18) * 2)


def test_an_octave_convolution_counts_both_parts():
    """Each output at its own size; float32 of few channels goes by vectors, which pad nothing here."""
    x = torch.randn(1, 32, 2, 8, 8)
    network = nn.Sequential(OctConv3d(32, 32, 1, alpha_in=0, alpha_out=0.5), nn.ReLU()).eval()
    work = count_work(optimize(network, x), x)
    assert work.executed_macs == 32 * 16 * (128 + 32)
    assert work.map_bytes == 4 * (128 * (32 + 16) + 32 * (32 + 16))


def test_octaves_have_less_to_do():
    x = torch.randn(1, 64, 4, 16, 16)
    counted = []
    for alpha in (0, 0.5):
        torch.manual_seed(0)
        network = nn.Sequential(*[nn.Conv3d(64, 64, (1, 3, 3), padding=(0, 1, 1)) for _ in range(4)]).eval()
        counted.append(count_work(optimize(octavize(network, alpha), x), x))
    assert counted[1].executed_macs < counted[0].executed_macs
    assert counted[1].map_bytes < counted[0].map_bytes


def test_windows_that_overlap_count_once():
    """A stem's rows of pixels, with three pixels of zeros at both ends and four channels each."""
    x = torch.randn(1, 3, 2, 16, 16)
    network = nn.Sequential(nn.Conv3d(3, 16, (1, 7, 7), (1, 2, 2), (0, 3, 3)), nn.ReLU()).eval()
    work = count_work(optimize(network, x, dtype=torch.bfloat16), x)
    pixel = 4 if library._has_matrices() else 3
    rows, out = 2 * 16 * (16 + 6) * pixel, 2 * 8 * 8 * 16
    assert abs(work.map_bytes - 2 * (rows + out)) <= 2 * 2 * pixel  # an even width leaves the last pixel out


@pytest.mark.parametrize(
    "conv", [nn.Conv3d(8, 8, 3, padding=1, groups=4), nn.Conv3d(8, 8, 3, padding_mode="replicate")]
)
def test_other_kernels_are_not_counted(conv):
    x = torch.randn(1, 8, 4, 4, 4)
    for network in (nn.Sequential(nn.Conv3d(8, 8, 1), conv), nn.Conv3d(8, 8, 1)):
        assert count_work(network.eval(), x) is None
    assert count_work(optimize(nn.Sequential(nn.Conv3d(8, 8, 1), conv).eval(), x), x) is None


@pytest.mark.parametrize("fails", [False, True])
def test_a_network_is_afterwards_what_it_was(fails, monkeypatch):
    x = torch.randn(1, 8, 2, 4, 4)
    network = optimize(nn.Sequential(nn.Conv3d(8, 8, 1), nn.ReLU()).eval(), x)
    [conv] = (module for module in network.modules() if isinstance(module, FusedConv))
    if fails:
        monkeypatch.setattr(TiledConv, "executed_macs", lambda self, x: 1 // 0)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        assert count_work(network, x) == count_work(network, x)
    assert {type(path) for path in conv.paths.values()} == {TiledConv}
