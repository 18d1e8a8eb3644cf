"""Schedule, parameter groups and optimizers."""

import math

import pytest
import torch
from torch import nn

from octvideo.models import build_model
from octvideo.training import LrSchedule, VideoClassifier, build_optimizer, epoch_of_step, parameter_groups


def test_warmup_then_cosine():
    schedule = LrSchedule(max_epochs=100, warmup_epochs=20, warmup_start=0.1)
    values = [schedule(epoch) for epoch in range(101)]
    assert values[0] == pytest.approx(0.1)
    assert values[10] == pytest.approx(0.55)
    assert values[20] == pytest.approx(1)
    assert values[60] == pytest.approx(0.5)
    assert values[100] == pytest.approx(0, abs=1e-12)
    assert values[40] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert LrSchedule(max_epochs=10)(0) == 1


def pyslowfast_lr(epoch, *, base_lr, max_epoch, warmup_epochs, warmup_start_lr, steps=(), lrs=()):
    """PySlowFast's rule as its documentation has it: COSINE_AFTER_WARMUP false, COSINE_END_LR 0, or relative steps."""

    def policy(at):
        if steps:
            return base_lr * lrs[sum(at >= step for step in steps) - 1]
        return base_lr * (math.cos(math.pi * at / max_epoch) + 1) * 0.5

    if epoch < warmup_epochs:
        return warmup_start_lr + epoch * (policy(warmup_epochs) - warmup_start_lr) / warmup_epochs
    return policy(epoch)


@pytest.mark.parametrize("warmup", [0, 34, 17.5])
def test_pyslowfasts_cosine(warmup):
    ours = LrSchedule(max_epochs=196, warmup_epochs=warmup, warmup_start=0.1, cosine_after_warmup=False)
    for epoch in torch.linspace(0, 196, 501).tolist():
        expected = pyslowfast_lr(epoch, base_lr=0.1, max_epoch=196, warmup_epochs=warmup, warmup_start_lr=0.01)
        assert 0.1 * ours(epoch) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("warmup", [0, 34])
def test_pyslowfasts_steps(warmup):
    ours = LrSchedule(max_epochs=118, warmup_epochs=warmup, warmup_start=0.1, steps=[44, 88])
    for epoch in [*torch.linspace(0, 118, 237).tolist(), 43.999, 87.999]:
        expected = pyslowfast_lr(
            epoch, base_lr=0.01, max_epoch=118, warmup_epochs=warmup, warmup_start_lr=0.001, steps=(0, 44, 88),
            lrs=(1, 0.1, 0.01),
        )  # fmt: skip
        assert 0.01 * ours(epoch) == pytest.approx(expected, rel=1e-12)


def test_epochs_of_different_lengths():
    steps = [3, 1, 4]
    expected = [0, 1 / 3, 2 / 3, 1, 2, 2.25, 2.5, 2.75, 3, 3]
    assert [epoch_of_step(step, steps) for step in range(10)] == pytest.approx(expected)
    assert all(epoch_of_step(196 * 10 * k, [1960] * 196) == k for k in range(197))  # no rounding at an epoch's start


@pytest.mark.parametrize("steps", [[0, 5], [5, 5], [9, 5]])
def test_steps_that_do_not_grow(steps):
    with pytest.raises(ValueError, match="lr_steps must be epochs that grow from above 0; got"):
        VideoClassifier("resnet3d_tiny", class_names=["a", "b"], lr_steps=steps)


def test_norms_and_biases_have_no_weight_decay():
    model = build_model("resnet3d_tiny", num_classes=3, alpha=0.25)
    decayed, plain = parameter_groups(model, 0.05)
    kinds = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
    assert decayed["weight_decay"] == 0.05
    assert plain["weight_decay"] == 0
    assert not [p for p in decayed["params"] if isinstance(kinds[id(p)], nn.BatchNorm3d)]
    assert {tuple(p.shape) for p in plain["params"]} == {(p.shape[0],) for p in plain["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_optimizers():
    group = [{"params": [nn.Parameter(torch.zeros(2))]}]
    assert build_optimizer("sgd", group, 0.1, 0.9).defaults["nesterov"]
    assert build_optimizer("adamw", group, 0.1, 0.9).defaults["betas"] == (0.9, 0.999)
    with pytest.raises(ValueError, match="optimizer must be one of sgd, adamw; got 'adam'"):
        build_optimizer("adam", group, 0.1, 0.9)
