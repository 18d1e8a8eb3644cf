"""Normalisation of pairs against torch's own layers."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from octvideo.layers import (
    OctBatchNorm3d,
    OctGroupNorm,
    OctLayerNorm,
    OctSyncBatchNorm,
    concat,
    convert_sync_batchnorm,
    merge,
    split,
)


def random_affine(norm):
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -0.5, 0.5)
    return norm.double()


def interleaved(size):
    """A pair of 3 maps side by side: its low channels are 3, 4, 7 and 11 of 12."""
    maps = [torch.randn(3, c, *size, dtype=torch.float64) for c in (5, 3, 4)]
    return concat([split(m, a) for m, a in zip(maps, (0.4, 0.34, 0.25), strict=True)])


def test_batch_norm_after_a_concatenation_keeps_each_channels_statistics():
    ours = random_affine(OctBatchNorm3d(12))
    dense = nn.BatchNorm3d(12).double()
    dense.load_state_dict(ours.state_dict())
    for _ in range(2):
        pair = interleaved((2, 4, 6))
        out = ours(pair)
        assert out.segments == pair.segments
    # The dense norm of a map in which every low element stands for 4 equal ones has the same means, and nearly the same
    # variances: torch divides the running ones by the number of elements less one.
    dense.train()
    dense.running_mean.copy_(ours.running_mean * 0)
    dense(merge(pair))
    torch.testing.assert_close(
        merge(out), nn.functional.batch_norm(merge(pair), None, None, dense.weight, dense.bias, training=True)
    )
    again = copy.deepcopy(ours)
    again.momentum = 1.0
    again(pair)
    torch.testing.assert_close(again.running_mean, merge(pair).mean((0, 2, 3, 4)))
    again.eval()
    torch.testing.assert_close(
        merge(again(pair)),
        nn.functional.batch_norm(merge(pair), again.running_mean, again.running_var, again.weight, again.bias),
    )


@pytest.mark.parametrize(("make", "dense"), [
    (lambda: OctGroupNorm(3, 12), lambda x, n: nn.functional.group_norm(x, 3, n.weight, n.bias, n.eps)),
    (lambda: OctGroupNorm(12, 12), lambda x, n: nn.functional.group_norm(x, 12, n.weight, n.bias, n.eps)),
    (lambda: OctLayerNorm(12), lambda x, n: nn.functional.layer_norm(
        x.movedim(1, -1), (12,), n.weight, n.bias, n.eps).movedim(-1, 1)),
])  # fmt: skip
def test_a_pair_is_normalised_as_its_dense_map(make, dense):
    """Even sizes: every low element stands for 4 dense ones, and so the dense layer's statistics are the same."""
    norm = random_affine(make())
    pair = interleaved((2, 4, 6))
    out = norm(pair)
    assert out.segments == pair.segments
    if isinstance(norm, OctLayerNorm):  # a low position sees the mean of the four high ones
        torch.testing.assert_close(merge(norm(constant_in_space(pair))), dense(merge(constant_in_space(pair)), norm))
        assert out.high.shape == pair.high.shape
        assert out.low.shape == pair.low.shape
    else:
        torch.testing.assert_close(merge(out), dense(merge(pair), norm))
    x = torch.randn(2, 12, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(norm(x), dense(x, norm))
    with pytest.raises(ValueError, match="of 12 channels got a pair of 2 high and 2 low"):
        norm(split(torch.zeros(1, 4, 1, 2, 2), 0.5))


def constant_in_space(pair):
    return pair.map(lambda part: part[..., :1, :1].expand_as(part))


def test_layer_norm_against_a_loop_over_positions():
    norm = random_affine(OctLayerNorm(6))
    pair = split(torch.randn(1, 6, 1, 3, 4, dtype=torch.float64), 0.34)
    out = norm(pair)
    high, low = pair.high[0, :, 0], pair.low[0, :, 0]
    for h in range(3):
        for w in range(4):
            channels = torch.cat([high[:, h, w], low[:, h // 2, w // 2]])
            mean = channels.mean()
            centred = high[:, h, w] - mean
            low_squares = (low[:, h // 2, w // 2] - low_mean(high, low, h // 2, w // 2)).square().sum()
            gain = ((centred.square().sum() + low_squares) / 6 + norm.eps).rsqrt()
            torch.testing.assert_close(out.high[0, :, 0, h, w], centred * gain * norm.weight[:4] + norm.bias[:4])


def low_mean(high, low, h, w):
    """Mean over all channels at a low position: the high ones averaged over the window that it covers."""
    window = high[:, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
    return torch.cat([window.mean((1, 2)), low[:, h, w]]).mean()


def _train_on_two(rank, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = convert_sync_batchnorm(nn.Sequential(OctBatchNorm3d(12).double(), nn.ReLU())[:1])
    batch = interleaved((2, 3, 5))
    part = batch.map(lambda x: x[rank : rank + 1 + rank])  # uneven: 1 and 2 of 3 samples
    leaves = part.map(lambda x: x.detach().requires_grad_())
    out = model(leaves)
    (out.high.pow(3).sum() + out.low.pow(3).sum()).backward()
    grads = leaves.map(lambda x: x.grad)
    dense = torch.cat([merge(out).detach(), merge(grads)], 1)
    torch.save((dense, model.state_dict(), model[0].weight.grad), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_synchronised_over_two_processes_equals_one_process(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        norm = OctBatchNorm3d(12).double()
        leaves = interleaved((2, 3, 5)).map(lambda x: x.detach().requires_grad_())
    out = norm(leaves)
    (out.high.pow(3).sum() + out.low.pow(3).sum()).backward()
    expected = torch.cat([merge(out), merge(leaves.map(lambda x: x.grad))], 1)
    mp.spawn(_train_on_two, (free_port(), str(tmp_path)), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([r[0] for r in results]), expected)
    torch.testing.assert_close(results[0][1]["0.running_mean"], norm.running_mean)
    torch.testing.assert_close(results[1][1]["0.running_var"], norm.running_var)
    torch.testing.assert_close(results[0][2] + results[1][2], norm.weight.grad)


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_alone_the_synchronised_norm_is_the_ordinary_one():
    norm = random_affine(OctBatchNorm3d(12))
    sync = convert_sync_batchnorm(nn.Sequential(copy.deepcopy(norm)))[0]
    assert type(sync) is OctSyncBatchNorm
    pair = interleaved((1, 3, 3))
    for got, expected in zip(sync(pair), norm(pair), strict=True):
        assert torch.equal(got, expected)
    with pytest.raises(ValueError, match="maps of 2 or more dimensions"):
        sync(torch.zeros(3))
