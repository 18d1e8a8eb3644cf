"""Octave networks on a GPU; skipped where there is none."""

import copy

import pytest
import torch
import torch.nn.functional as F

from octvideo.benchmarks import benchmark_networks
from octvideo.benchmarks.training import peak_bytes, training_step
from octvideo.layers import to_channels_last
from octvideo.models import build_model
from octvideo.runtime import optimize
from octvideo.training import checkpoint_activations

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


@pytest.fixture(autouse=True)
def exact_float32():
    """TensorFloat-32, cuDNN's default, would round the products to 10 bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def network_and_clips(alpha=0.25, octave="spatial"):
    torch.manual_seed(0)
    network = build_model("resnet3d_tiny", num_classes=5, alpha=alpha, octave=octave, dropout=0)
    return network, torch.randn(2, 3, 5, 49, 46)


def on_gpu(network, clips, channels_last):
    network = copy.deepcopy(network).cuda()
    if channels_last:
        return to_channels_last(network), clips.cuda().contiguous(memory_format=torch.channels_last_3d)
    return network, clips.cuda()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("alpha", "octave"), [(0, "spatial"), (0.25, "spatial"), (0.125, "spatiotemporal")])
def test_outputs_and_gradients_equal_the_cpus(alpha, octave, channels_last):
    network, clips = network_and_clips(alpha, octave)
    results = []
    for one, x in ((network, clips), on_gpu(network, clips, channels_last)):
        logits = one(x)
        F.cross_entropy(logits, torch.tensor([0, 3], device=x.device)).backward()
        results.append([logits.cpu(), *(p.grad.cpu() for p in one.parameters()), *(b.cpu() for b in one.buffers())])
    for got, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_optimized_networks_equal_the_cpus(dtype):
    network, clips = network_and_clips()
    with torch.no_grad():
        expected = network.eval()(clips)
        fast = optimize(copy.deepcopy(network).to("cuda", dtype), clips.to("cuda", dtype))
        got = fast(clips.to("cuda", dtype)).float().cpu()
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_bfloat16_by_autocast_comes_near_float32():
    network, clips = network_and_clips()
    fast, x = on_gpu(network, clips, channels_last=True)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        got = fast.eval()(x)
    expected = network.eval()(clips)
    torch.testing.assert_close(got.float().cpu(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_recomputed_blocks_learn_the_same_in_less_memory():
    network, clips = network_and_clips()
    losses, peaks = [], []
    for recompute in (False, True):
        one, x = on_gpu(network, clips.repeat(4, 1, 2, 1, 1), channels_last=True)
        step = training_step(checkpoint_activations(one) if recompute else one, x, 5, torch.bfloat16)
        step()
        peaks.append(peak_bytes(step, x.device))
        losses.append(F.cross_entropy(one.eval()(x), torch.arange(8, device="cuda") % 5).item())
    assert peaks[1] < 0.8 * peaks[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("step", ["inference", "training"])
def test_the_benchmark_runs(step):
    rows = benchmark_networks(
        "resnet3d_tiny", [0.5], step=step, variants=["eager", "fast", "peer"], batch_size=2, crop=[48],
        dtype="bfloat16", device="cuda", rounds=2,
    )  # fmt: skip
    assert len(rows) == 5
    assert all(row["median_ms"] > 0 for row in rows)
