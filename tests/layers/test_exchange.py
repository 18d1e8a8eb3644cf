"""What the parts give each other, and its gradients, against torch's own pooling and up-sampling."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octvideo.layers import OctConv2d, OctConv3d, split
from octvideo.layers.exchange import add_upsampled, with_pooled

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


@pytest.mark.parametrize(("size", "factors"), CASES)
def test_gradients_of_gradients(size, factors):
    high, low = random_maps(size, factors, torch.contiguous_format)
    assert torch.autograd.gradcheck(add_upsampled, (high, low), check_forward_ad=True)
    assert torch.autograd.gradcheck(lambda x: with_pooled(x, factors), (high,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(add_upsampled, (high, low))
    assert torch.autograd.gradgradcheck(lambda x: with_pooled(x, factors), (high,))
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


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_transforms_of_torch_func_run_through_a_convolution(transform):
    torch.manual_seed(0)
    conv = OctConv2d(4, 4, 3, padding=1, alpha_in=0.5, alpha_out=0.5).double()
    pair = split(torch.randn(2, 4, 5, 4).double(), 0.5)

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
