"""Normalisation of pairs against torch's own layers."""

import copy
import sys

import pytest
import torch
import torch.distributed as dist
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
    """Each part against torch's norm of its own channels, which lie scattered in the dense order."""
    ours = random_affine(OctBatchNorm3d(12))
    channels = {"high": [0, 1, 2, 5, 6, 8, 9, 10], "low": [3, 4, 7, 11]}
    parts = {name: nn.BatchNorm3d(len(index)).double() for name, index in channels.items()}
    for name, index in channels.items():
        parts[name].weight.data, parts[name].bias.data = ours.weight.data[index], ours.bias.data[index]
    for training in (True, True, False):
        pair = interleaved((2, 4, 6))
        out = ours.train(training)(pair)
        assert out.segments == pair.segments
        for name, index in channels.items():
            dense = parts[name].train(training)
            torch.testing.assert_close(getattr(out, name), dense(getattr(pair, name)))
            torch.testing.assert_close(ours.running_mean[index], dense.running_mean)
            torch.testing.assert_close(ours.running_var[index], dense.running_var)


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
    centred_high, centred_low = high.clone(), low.clone()
    for h in range(3):
        for w in range(4):
            centred_high[:, h, w] -= torch.cat([high[:, h, w], low[:, h // 2, w // 2]]).mean()
    for h in range(2):
        for w in range(2):
            centred_low[:, h, w] -= torch.cat([window(high, h, w).mean((1, 2)), low[:, h, w]]).mean()
    for h in range(3):
        for w in range(4):
            squares = torch.cat([centred_high[:, h, w], centred_low[:, h // 2, w // 2]]).square()
            expected = centred_high[:, h, w] * (squares.mean() + norm.eps).rsqrt() * norm.weight[:4] + norm.bias[:4]
            torch.testing.assert_close(out.high[0, :, 0, h, w], expected)
    for h in range(2):
        for w in range(2):
            squares = torch.cat([window(centred_high.square(), h, w).mean((1, 2)), centred_low[:, h, w].square()])
            expected = centred_low[:, h, w] * (squares.mean() + norm.eps).rsqrt() * norm.weight[4:] + norm.bias[4:]
            torch.testing.assert_close(out.low[0, :, 0, h, w], expected)


def window(x, h, w):
    """What a low position covers of the high part."""
    return x[:, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_values_in_half_precision(dtype):
    """Squares of 400 overflow float16: statistics are computed in float32, as torch does."""
    for norm in (OctGroupNorm(3, 12), OctLayerNorm(12)):
        pair = interleaved((2, 4, 6)).map(lambda part: (400 * part).to(dtype))
        out = norm.to(dtype)(pair)
        exact = norm.double()(pair.map(lambda part: part.double()))
        assert out.high.dtype == out.low.dtype == dtype
        torch.testing.assert_close(merge(out).double(), merge(exact), rtol=0.02, atol=0.02)


def train_on_rank(rank, folder):
    """What one of two processes runs; its findings go to a file."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
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


def test_synchronised_over_two_processes_equals_one_process(tmp_path, warm_python):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        norm = OctBatchNorm3d(12).double()
        leaves = interleaved((2, 3, 5)).map(lambda x: x.detach().requires_grad_())
    out = norm(leaves)
    (out.high.pow(3).sum() + out.low.pow(3).sum()).backward()
    expected = torch.cat([merge(out), merge(leaves.map(lambda x: x.grad))], 1)
    warm_python.run(*[[__file__, rank, tmp_path] for rank in (0, 1)])
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([r[0] for r in results]), expected)
    torch.testing.assert_close(results[0][1]["0.running_mean"], norm.running_mean)
    torch.testing.assert_close(results[1][1]["0.running_var"], norm.running_var)
    torch.testing.assert_close(results[0][2] + results[1][2], norm.weight.grad)


def test_alone_the_synchronised_norm_is_the_ordinary_one():
    norm = random_affine(OctBatchNorm3d(12))
    sync = convert_sync_batchnorm(nn.Sequential(copy.deepcopy(norm)))[0]
    assert type(sync) is OctSyncBatchNorm
    pair = interleaved((1, 3, 3))
    for got, expected in zip(sync(pair).parts, norm(pair).parts, strict=True):
        assert torch.equal(got, expected)
    with pytest.raises(ValueError, match="maps of 2 or more dimensions"):
        sync(torch.zeros(3))


if __name__ == "__main__":
    train_on_rank(int(sys.argv[1]), sys.argv[2])
