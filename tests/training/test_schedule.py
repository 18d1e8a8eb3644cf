"""Schedule, parameter groups and optimizers."""

import math

import pytest
import torch
from torch import nn

from octvideo.models import build_model
from octvideo.training import build_optimizer, parameter_groups, warmup_cosine


def test_warmup_then_cosine():
    values = [warmup_cosine(step, 100, 20, 0.1) for step in range(101)]
    assert values[0] == pytest.approx(0.1)
    assert values[10] == pytest.approx(0.55)
    assert values[20] == pytest.approx(1)
    assert values[60] == pytest.approx(0.5)
    assert values[100] == pytest.approx(0, abs=1e-12)
    assert values[40] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert warmup_cosine(0, 10, 0, 0.1) == 1


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
