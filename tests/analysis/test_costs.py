"""Parameters, activation bytes, the table over alpha, and latency."""

import time
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from octvideo.analysis import activation_bytes, cost_table, count_parameters, measure_latency


class Pair(NamedTuple):
    high: Tensor
    low: Tensor


class Split(nn.Module):
    """Gives a pair of which the low part has half the height and width."""

    def forward(self, x):
        return Pair(x, x[..., ::2, ::2])


class Merge(nn.Module):
    def forward(self, pair):
        return pair.high


def halves(alpha):
    """A network whose middle convolution has 8 * (1 - alpha) channels."""
    channels = 8 - int(8 * alpha)
    return nn.Sequential(nn.Conv3d(3, channels, 1, bias=False), nn.AvgPool3d((1, 2, 2)), nn.Conv3d(channels, 4, 1))


def test_parameters_count_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    assert count_parameters(model) == 24
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    assert count_parameters(model) == 15


def test_activation_bytes_of_leaves_and_pairs():
    model = nn.Sequential(nn.Sequential(nn.Conv3d(3, 4, 1), Split()), Merge())
    elements = [4 * 2 * 6 * 6, 4 * 2 * (6 * 6 + 3 * 3), 4 * 2 * 6 * 6]
    assert activation_bytes(model, torch.zeros(1, 3, 2, 6, 6)) == 4 * sum(elements)
    assert model.training
    assert not model[0][0]._forward_hooks


def test_a_module_called_twice_counts_twice():
    layer = nn.Linear(3, 3)
    assert activation_bytes(nn.Sequential(layer, layer), torch.zeros(1, 3)) == 2 * 3 * 4


def test_cost_table_by_hand():
    rows = cost_table(halves, (0.5, 0), (3, 2, 4, 4))
    dense_macs = 3 * 8 * 32 + 8 * 4 * 8
    assert [list(row) for row in rows] == [
        ["alpha", "gmacs", "relative_percent", "pool_gmacs", "params_m", "activation_mb"]
    ] * 2
    half, dense = rows
    assert dense["gmacs"] == pytest.approx(dense_macs / 1e9)
    assert (dense["relative_percent"], half["relative_percent"]) == (100.0, 50.0)
    assert dense["pool_gmacs"] == pytest.approx(8 * 32 / 1e9)
    assert dense["params_m"] == pytest.approx((3 * 8 + 8 * 4 + 4) / 1e6)
    assert dense["activation_mb"] == pytest.approx(4 * (8 * 32 + 8 * 8 + 4 * 8) / 1e6)


def test_cost_table_without_the_dense_row_is_still_relative_to_it():
    (row,) = cost_table(halves, [0.25], (1, 3, 2, 4, 4))
    assert row["relative_percent"] == pytest.approx(75.0)


def test_cost_table_of_a_builder_that_reads_its_tensors():
    def build(alpha):
        depth = int(torch.linspace(1, 2, 2)[1].item())
        return nn.Sequential(*(nn.Conv3d(3, 3, 1) for _ in range(depth)))

    (row,) = cost_table(build, [0.0], (3, 2, 4, 4))
    assert row["gmacs"] == pytest.approx(2 * 9 * 32 / 1e9)


def test_cost_table_errors():
    with pytest.raises(ValueError, match="alphas should hold at least one value"):
        cost_table(halves, [], (3, 2, 4, 4))


class Sleep(nn.Module):
    """Takes the given milliseconds, one after the other, and notes its mode."""

    def __init__(self, times_ms):
        super().__init__()
        self.times_ms = list(times_ms)
        self.modes = []

    def forward(self, x):
        self.modes.append((self.training, torch.is_grad_enabled()))
        time.sleep(self.times_ms.pop(0) / 1e3)
        return x


def test_latency_is_the_median_after_the_warmup():
    model = Sleep([60, 5, 5, 80, 5, 5])
    report = measure_latency(model, torch.zeros(1), warmup=1, runs=5)
    assert 5 <= report.median_ms < 60
    assert 0 <= report.iqr_ms < 60
    assert (report.threads, report.device) == (torch.get_num_threads(), "cpu")
    assert set(model.modes) == {(False, False)}
    assert model.training


def test_latency_of_several_arguments():
    report = measure_latency(nn.Bilinear(2, 2, 1), (torch.zeros(1, 2), torch.zeros(1, 2)), warmup=0, runs=2)
    assert report.median_ms > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_latency_waits_for_the_gpu():
    model = nn.Conv3d(64, 64, 3, padding=1).cuda()
    report = measure_latency(model, torch.zeros(1, 64, 16, 112, 112, device="cuda"), warmup=3, runs=5)
    macs = 64 * 64 * 27 * 16 * 112 * 112
    assert report.median_ms > 1e3 * macs / 1e15  # no GPU does 10^15 multiply-adds of float32 in a second
    assert report.device == torch.cuda.get_device_name()


def test_latency_errors():
    with pytest.raises(ValueError, match="runs should be at least 2 and warmup at least 0, got 1 and 3"):
        measure_latency(nn.Identity(), torch.zeros(1), runs=1)
    with pytest.raises(ValueError, match="real device, got device meta"):
        measure_latency(nn.Identity(), torch.zeros(1, device="meta"))
    with pytest.raises(ValueError, match="got device None"):
        measure_latency(nn.Identity(), ())
