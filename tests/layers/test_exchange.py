"""What the parts give each other, and its gradients, against torch's own pooling and up-sampling."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from octvideo import kernels
from octvideo.kernels import library
from octvideo.layers import OctConv2d, OctConv3d, OctPair, merge, split
from octvideo.layers.exchange import add_upsampled, with_joined, with_pooled
from octvideo.layers.resize import low_size

CASES = [
    ((4,), (2,)), ((5,), (2,)), ((2,), (2,)),
    ((4, 6), (2, 2)), ((5, 7), (2, 2)), ((2, 4), (2, 2)),
    ((3, 4, 6), (1, 2, 2)), ((2, 5, 7), (1, 2, 2)), ((5, 3, 4), (2, 1, 1)),
    ((3, 5, 2), (2, 2, 2)), ((4, 2, 2), (2, 2, 2)),
]  # fmt: skip
POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def layouts(num_axes):
    last = {2: torch.channels_last, 3: torch.channels_last_3d}
    return [torch.contiguous_format] + ([last[num_axes]] if num_axes in last else [])


def random_maps(size, factors, layout, dtype=torch.float64):
    torch.manual_seed(0)
    sizes = size, [-(-n // f) for n, f in zip(size, factors, strict=True)]
    maps = [torch.randn(2, 3, *s, dtype=dtype).contiguous(memory_format=layout) for s in sizes]
    return [m.requires_grad_() for m in maps]


def slow_repeat(x, size):
    for axis, n in enumerate(size, start=2):
        x = x.index_select(axis, torch.arange(n) // (1 if x.shape[axis] == n else 2))
    return x


@pytest.mark.parametrize(("size", "factors"), CASES)
def test_sum_with_an_up_sampled_map(size, factors):
    for layout in layouts(len(size)):
        high, low = random_maps(size, factors, layout)
        total = add_upsampled(high, low)
        expected = high + slow_repeat(low, size)
        assert torch.equal(total, expected)
        assert total.stride() == high.stride()
        toward = torch.randn_like(total)
        gradients = [torch.autograd.grad(out, (high, low), toward) for out in (total, expected)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("size", "factors"), CASES)
@pytest.mark.parametrize("used", [(1, 1), (1, 0), (0, 1)])
def test_pooling_beside_a_map(size, factors, used):
    for layout in layouts(len(size)):
        x, toward_pooled = random_maps(size, factors, layout)
        toward = torch.randn_like(x)
        own = with_pooled(x, factors)
        theirs = x, POOL[len(size)](x, factors, factors, ceil_mode=True, count_include_pad=False)
        torch.testing.assert_close(own, theirs)
        gradients = []
        for kept, pooled in (own, theirs):
            loss = used[0] * (kept * toward).sum() if used[0] else 0
            gradients.append(torch.autograd.grad(loss + used[1] * (pooled * toward_pooled).sum(), x))
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "factors"), CASES)
def test_inference(size, factors, dtype, in_kernels):
    """Without gradients, too, the kernels take what they can, and give what torch's functions do."""
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.016, "atol": 0.01}
    for layout in layouts(len(size)):
        high, low = random_maps(size, factors, layout, dtype)
        pooled = POOL[len(size)](high.float(), factors, factors, ceil_mode=True, count_include_pad=False).to(dtype)
        in_kernels.clear()
        with torch.no_grad():
            torch.testing.assert_close(add_upsampled(high, low), high + slow_repeat(low, size), **tolerance)
            torch.testing.assert_close(with_pooled(high, factors), (high, pooled), **tolerance)
            joined = with_joined(high, low, factors, ((3, 3),))
            torch.testing.assert_close(joined, (high, torch.cat([pooled, low], 1)), **tolerance)
        ran = [kernel.__name__ for kernel in in_kernels]
        assert ran == ([] if layout == torch.contiguous_format else ["add_upsampled", "join", "join"])


@pytest.mark.parametrize(("size", "factors"), CASES)
def test_gradients_of_gradients(size, factors):
    high, low = random_maps(size, factors, torch.contiguous_format)
    assert torch.autograd.gradcheck(add_upsampled, (high, low), check_forward_ad=True)
    assert torch.autograd.gradcheck(lambda x: with_pooled(x, factors), (high,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(add_upsampled, (high, low), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: with_pooled(x, factors), (high,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: with_pooled(x.sin(), factors)[1].square(), (high,))


def test_the_maps_that_are_given_stay_as_they_are():
    high, low = random_maps((4, 4), (2, 2), torch.contiguous_format)
    before = high.detach().clone(), low.detach().clone()
    kept, pooled = with_pooled(add_upsampled(high, low), (2, 2))
    toward = torch.ones_like(kept), torch.ones_like(pooled)
    torch.autograd.grad((kept, pooled), (high, low), toward)
    torch.testing.assert_close((high.detach(), low.detach()), before, rtol=0, atol=0)
    assert all(bool((t == 1).all()) for t in toward)


def test_gradients_in_bfloat16_are_sums_that_are_rounded_once():
    high, low = random_maps((3, 6, 6), (1, 2, 2), torch.channels_last_3d, torch.bfloat16)
    toward = torch.randn_like(high)
    (gradient,) = torch.autograd.grad(add_upsampled(high, low), low, toward)
    exact = 4 * F.avg_pool3d(toward.double(), (1, 2, 2))
    assert torch.equal(gradient, exact.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_transforms_of_torch_func_run_through_a_convolution(transform, dtype):
    torch.manual_seed(0)
    conv = OctConv2d(4, 4, 3, padding=1, alpha_in=0.5, alpha_out=0.5).to(dtype)
    pair = split(torch.randn(2, 4, 5, 4).to(dtype).contiguous(memory_format=torch.channels_last), 0.5)

    def loss(weight):
        out = torch.func.functional_call(conv, {"weight": weight}, (pair,))
        return out.high.square().mean() + out.low.square().mean()

    (expected,) = torch.autograd.grad(loss(conv.weight), conv.weight)
    torch.testing.assert_close(transform(loss)(conv.weight.detach()), expected)


def test_one_pass_takes_in_both_gradients():
    """A network's high part gets no gradient that autograd would have to add to another."""
    conv = OctConv3d(8, 8, 1, alpha_in=0.25, alpha_out=0.25)
    pair = split(torch.randn(1, 8, 2, 4, 4), 0.25).map(nn.Parameter)
    out = conv(pair)
    seen, stack = [], [out.high.grad_fn, out.low.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.append(node)
            stack.extend(following for following, _ in node.next_functions)
    into_high = [n for n in seen for f, _ in n.next_functions if getattr(f, "variable", None) is pair.high]
    assert len(into_high) == 1


EXCHANGES = {
    "add": (lambda high, low, factors: (add_upsampled(high, low),), lambda c: c),
    "join": (lambda high, low, factors: with_joined(high, low, factors, ((high.shape[1], low.shape[1]),)), lambda c: 3),
    "pool": (lambda high, low, factors: with_pooled(high, factors), lambda c: 0),
}
"""What runs, and how many low channels it takes beside c high ones."""

SIZES = [((4, 6), (2, 2)), ((5, 1), (2, 2)), *(
    (size, factors)
    for size in [(1, 1, 1), (2, 5, 7), (4, 6, 2)]
    for factors in [(1, 2, 2), (2, 1, 1), (2, 2, 2)]
)]  # fmt: skip


@pytest.fixture
def in_kernels(monkeypatch):
    """Calls of the kernels."""
    if not all(map(library.library, (torch.float32, torch.bfloat16))):
        pytest.skip("no C compiler")
    calls = []
    for name in ("pool", "join", "add_upsampled"):
        kernel = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, run=kernel, **k: calls.append(run) or run(*a, **k))
    return calls


def channels_last(channels, size, dtype):
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[len(size)]
    return torch.randn(2, channels, *size).to(dtype).contiguous(memory_format=layout)


def values_and_gradients(run, maps, towards, factors):
    maps = [m.detach().clone().requires_grad_() for m in maps]
    values = run(*maps, factors)
    towards = [t.expand_as(v) if t.dim() == 0 else t for t, v in zip(towards, values, strict=True)]
    used = [m for m in maps if m.shape[1]]
    return [v.detach() for v in values], torch.autograd.grad(values, used, towards, allow_unused=True)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", EXCHANGES)
def test_kernels_equal_torch_in_double_precision(name, dtype, num_threads, in_kernels):
    run, low_channels = EXCHANGES[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        for size, factors in SIZES:
            for channels in (1, 7, 8, 28):
                small = low_size(size, factors)
                maps = channels_last(channels, size, dtype), channels_last(low_channels(channels), small, dtype)
                towards = [channels_last(v.shape[1], v.shape[2:], dtype) for v in run(*maps, factors)]
                exact = values_and_gradients(run, [m.double() for m in maps], [t.double() for t in towards], factors)
                in_kernels.clear()
                got = values_and_gradients(run, maps, towards, factors)
                assert in_kernels or size == small
                tolerance = 1e-6 if dtype == torch.float32 else 2**-8  # rounded once
                for a, b in zip((*got[0], *got[1]), (*exact[0], *exact[1]), strict=True):
                    assert a.dtype == dtype
                    torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=1e-6)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", EXCHANGES)
def test_gradients_that_lie_otherwise_in_memory(name, in_kernels):
    run, low_channels = EXCHANGES[name]
    size, factors = (2, 6, 4), (1, 2, 2)
    maps = channels_last(5, size, torch.float32), channels_last(low_channels(5), low_size(size, factors), torch.float32)
    values = run(*maps, factors)
    wider = [channels_last(v.shape[1] + 3, v.shape[2:], torch.float32)[:, 1:-2] for v in values]
    for towards in ([torch.tensor(1.0)] * len(values), [torch.randn(v.shape) for v in values], wider):
        got = values_and_gradients(run, maps, towards, factors)
        exact = values_and_gradients(run, [m.double() for m in maps], [t.double() for t in towards], factors)
        for a, b in zip((*got[0], *got[1]), (*exact[0], *exact[1]), strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", EXCHANGES)
def test_gradients_of_gradients_beside_kernels(name, in_kernels):
    run, low_channels = EXCHANGES[name]
    size, factors = (2, 5, 4), (1, 2, 2)
    maps = channels_last(5, size, torch.float32), channels_last(low_channels(5), low_size(size, factors), torch.float32)
    results = []
    for dtype in (torch.float32, torch.float64):
        high, low = (m.to(dtype).requires_grad_() for m in maps)
        loss = sum(v.pow(3).sum() for v in run(high, low, factors))
        (first,) = torch.autograd.grad(loss, high, create_graph=True)
        results.append([g.double() for g in torch.autograd.grad(first.pow(2).sum(), high)])
    assert in_kernels
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_a_convolution_under_autocast_runs_by_kernels(in_kernels):
    conv = OctConv3d(16, 16, (1, 3, 3), padding=(0, 1, 1), alpha_in=0.25, alpha_out=0.25)
    sizes = (12, (2, 6, 6)), (4, (2, 3, 3))
    pair = OctPair(*(channels_last(*size, torch.bfloat16).requires_grad_() for size in sizes))
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(pair)
    sum(part.square().sum() for part in out.parts).backward()
    # Forward the high part's means beside the low part, and the sum; backward the gradients of sum and means.
    assert [kernel.__name__ for kernel in in_kernels] == ["join", "add_upsampled", "pool", "add_upsampled"]


def test_a_traced_convolution_computes_anew(in_kernels):
    conv = OctConv2d(8, 8, 3, padding=1, alpha_in=0, alpha_out=0.5)
    after = OctConv2d(8, 8, 3, padding=1, alpha_in=0.5, alpha_out=0.5)
    first, second = (channels_last(8, (6, 6), torch.float32) for _ in range(2))

    def run(x):
        return merge(after(conv(x)))

    traced = make_fx(run)(first)
    assert not in_kernels
    torch.testing.assert_close(traced(second), run(second))


def test_without_a_compiler_torch_trains_with_a_notice(monkeypatch, tmp_path):
    maps = channels_last(5, (2, 5, 4), torch.float32), channels_last(5, (2, 3, 2), torch.float32)
    toward = [torch.ones_like(maps[0])]
    expected = values_and_gradients(EXCHANGES["add"][0], [m.double() for m in maps], [toward[0].double()], (1, 2, 2))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    library.library.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"run by oneDNN's and torch's functions.*no C compiler"):
            got = values_and_gradients(EXCHANGES["add"][0], maps, toward, (1, 2, 2))
    finally:
        library.library.cache_clear()
    torch.testing.assert_close(got[1], expected[1], check_dtype=False)


@pytest.mark.parametrize("moved", ["high", "low", "both"])
def test_forward_mode_derivatives_of_either_part(moved):
    """Of a linear layer the derivative is the layer of the tangents, those that are missing being 0."""
    conv = OctConv2d(4, 4, 3, padding=1, bias=False, alpha_in=0.5, alpha_out=0.5).double()
    parts = [torch.randn(2, 2, n, n, dtype=torch.float64) for n in (5, 3)]
    tangents = [
        torch.randn_like(part) * (moved in (name, "both")) for part, name in zip(parts, ("high", "low"), strict=True)
    ]
    with forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(part, tangent) if moved in (name, "both") else part
            for part, tangent, name in zip(parts, tangents, ("high", "low"), strict=True)
        ]
        found = [forward_ad.unpack_dual(part).tangent for part in conv(OctPair(*duals)).parts]
    for tangent, expected in zip(found, conv(OctPair(*tangents)).parts, strict=True):
        torch.testing.assert_close(tangent, expected)


def test_forward_mode_derivatives_without_gradients(in_kernels):
    """`no_grad` leaves forward mode on: its tangents must not be lost in kernels."""
    maps = channels_last(4, (2, 4, 5), torch.float32), channels_last(4, (2, 2, 3), torch.float32)
    tangents = [torch.randn_like(m) for m in maps]
    factors = (1, 2, 2)
    for run in (lambda high, low: [add_upsampled(high, low)], lambda *m: with_joined(*m, factors, ((4, 4),))):
        with torch.no_grad(), forward_ad.dual_level():
            duals = [forward_ad.make_dual(*both) for both in zip(maps, tangents, strict=True)]
            found = [forward_ad.unpack_dual(out).tangent for out in run(*duals)]
        assert not in_kernels
        for tangent, expected in zip(found, run(*(t.double() for t in tangents)), strict=True):
            torch.testing.assert_close(tangent.double(), expected, rtol=1e-6, atol=1e-6)


def test_factors_that_the_kernels_do_not_take():
    x = torch.randn(1, 16, 2, 8, 8).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    assert torch.equal(with_pooled(x, (1, 4, 4))[1], F.avg_pool3d(x, (1, 4, 4)))
