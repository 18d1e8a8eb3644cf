"""Which maps the kernels take."""

import pytest
import torch

from octvideo import kernels
from octvideo.kernels import library


@pytest.fixture(autouse=True)
def compiled():
    if library.library(torch.float32) is None:
        pytest.skip("no C compiler")


def clip(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype).contiguous(memory_format=kernels.LAYOUTS[len(shape)])


WIDE = clip(2, 8, 3, 4, 5)


@pytest.mark.parametrize(
    ("x", "known", "in_rows", "taken"),
    [
        (clip(2, 8, 3, 4, 5), True, True, True),
        (clip(2, 8, 4, 5, dtype=torch.bfloat16), True, True, True),
        (WIDE[:, 2:5], True, True, False),
        (WIDE[..., ::2], True, False, False),
        (torch.zeros(2, 8, 3, 4, 5), True, False, False),
        (clip(2, 8, 4, 5, dtype=torch.float64), False, False, False),
        (clip(2, 8, 4, 5).to("meta"), False, False, False),
        (torch.zeros(2, 8, 5), False, False, False),
    ],
    ids=["clip", "image", "some channels", "each second place", "planes", "float64", "elsewhere", "sequence"],
)
def test_which_maps_the_kernels_take(x, known, in_rows, taken):
    assert (kernels.knows(x), kernels.takes_rows(x), kernels.takes(x)) == (known, in_rows, taken)


def test_maps_of_two_types_are_not_taken_together():
    a, b = clip(2, 8, 4, 5), clip(2, 8, 4, 5, dtype=torch.bfloat16)
    assert kernels.takes(a, a)
    assert not kernels.takes(a, b)


def test_a_map_that_does_not_lie_right_compiles_nothing(monkeypatch):
    monkeypatch.setattr("octvideo.kernels.maps.library", None)
    assert not kernels.takes(torch.zeros(2, 8, 4, 5))
    assert not kernels.takes_rows(torch.zeros(2, 8, 4, 5))


@pytest.mark.parametrize(
    ("x", "step"),
    [
        (WIDE, 8),
        (WIDE[:, 2:5], 8),
        (WIDE[:, 2:5, :, :, :1], 40),
        (WIDE[:1, :3, :1, :1, :1], 3),
        (WIDE[:, :, :, ::2], None),
        (torch.zeros(2, 8, 3, 4, 5), None),
        (torch.zeros(2, 1, 3, 4, 5), 1),
        (torch.zeros(2, 8, 5), None),
    ],
)
def test_steps_between_places(x, step):
    assert kernels.row_step(x) == step
