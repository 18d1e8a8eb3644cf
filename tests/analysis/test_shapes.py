"""What is answered by shape alone has the shapes that the computation has."""

import pytest
import torch
from torch import nn

from octvideo.analysis.shapes import ShapesOnly


def described(tensors):
    return [(t.shape, t.stride(), t.dtype) for t in tensors]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_have_the_shapes_of_computed_ones(training, affine, dtype):
    def passed(device):
        norm = nn.BatchNorm3d(6, affine=affine, device=device, dtype=dtype).train(training)
        x = torch.ones(2, 6, 3, 4, 5, device=device, dtype=dtype)
        x = x.to(memory_format=torch.channels_last_3d).requires_grad_()
        y = norm(x)
        y.sum().backward()
        return [y, x.grad, *(p.grad for p in norm.parameters()), *norm.buffers()]

    with ShapesOnly():
        on_meta = passed("meta")
    assert all(t.is_meta for t in on_meta)
    assert described(on_meta) == described(passed("cpu"))


def test_only_the_gradients_that_are_asked_for():
    norm, x = nn.BatchNorm1d(3, device="meta").requires_grad_(False), torch.ones(2, 3, device="meta").requires_grad_()
    with ShapesOnly():
        norm(x).sum().backward()
    assert x.grad.shape == x.shape
    assert norm.weight.grad is norm.bias.grad is None


def test_networks_have_the_names_and_shapes_of_built_ones():
    with ShapesOnly(), torch.device("meta"):
        on_meta = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)).state_dict()
    expected = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)).state_dict()
    assert {k: v.shape for k, v in on_meta.items()} == {k: v.shape for k, v in expected.items()}


def test_other_devices_get_torchs_answers():
    norm, x = nn.BatchNorm1d(3), torch.randn(4, 3)
    expected = (x - x.mean(0)) / (x.var(0, correction=0) + norm.eps).sqrt()
    torch.manual_seed(1)
    drawn = torch.empty(5).normal_()
    with ShapesOnly():
        torch.testing.assert_close(norm(x), expected)
        torch.manual_seed(1)
        assert torch.equal(torch.empty(5).normal_(), drawn)
