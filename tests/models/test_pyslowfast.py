"""PySlowFast's files: its own names, shapes and outputs, recorded from its networks, against ours.

Each file in pyslowfast/ lists the state dict of one of PySlowFast's networks in its order ("norm C" stands for a batch
norm's five entries), and the first six logits that it gave in float64 for the weights and the clip made below.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from pytorchvideo.models.x3d import create_x3d
from torch import nn

from octvideo.models import build_model, load_weights
from octvideo.models.names import to_network_names

RECORDS = Path(__file__).parent / "pyslowfast"
NAMES = sorted(path.stem for path in RECORDS.glob("*.txt"))
CLIPS = {"i3d_r50_nln": (8, 64, 64), "slowfast_r50_8x8": (32, 64, 64), "x3d_m": (16, 64, 64)}


class NonLocalStage(nn.Module):
    """A stage with non-local blocks after some of its residual blocks."""

    def __init__(self, res_blocks, positions, dim):
        super().__init__()
        self.res_blocks = res_blocks
        self.non_local = nn.ModuleDict(
            {str(i): create_nonlocal(dim_in=dim, dim_inner=dim // 2, pool_size=(1, 2, 2)) for i in positions}
        )

    def forward(self, x):
        for index, block in enumerate(self.res_blocks):
            x = block(x)
            if str(index) in self.non_local:
                x = self.non_local[str(index)](x)
        return x


def network(name):
    """The network of PyTorchVideo's names that a record fits, for clips of any size."""
    if name.startswith("x3d"):
        return create_x3d(input_clip_length=16, input_crop_size=64, head_activation=None)
    net = build_model(name.removesuffix("_nln"), num_classes=400)
    if name.endswith("_nln"):
        net.blocks[3] = NonLocalStage(net.blocks[3].res_blocks, (1, 3), 512)
        net.blocks[4] = NonLocalStage(net.blocks[4].res_blocks, (1, 3, 5), 1024)
    if name.startswith("slowfast"):
        net.blocks[5].pool = nn.ModuleList([nn.AdaptiveAvgPool3d(1), nn.AdaptiveAvgPool3d(1)])
    else:
        net.blocks[-1].pool = nn.AdaptiveAvgPool3d(1)
    return net


def record(name):
    """Shapes by PySlowFast's names, in its order, and its logits."""
    first, *lines = (RECORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    shapes = {}
    for module, kind, *shape in map(str.split, lines):
        for entry in ("weight", "bias", "running_mean", "running_var") if kind == "norm" else (kind,):
            shapes[f"{module}.{entry}"] = tuple(map(int, shape))
        if kind == "norm":
            shapes[f"{module}.num_batches_tracked"] = ()
    return shapes, [float(x) for x in first.split("logits ")[1].split()]


def made_up(shapes):
    """Weights by name from a stream of numbers that no version of NumPy changes."""
    stream = np.random.RandomState(0)
    weights = {}
    for name, shape in shapes.items():
        kind = name.rpartition(".")[2]
        if kind == "num_batches_tracked":
            value = np.zeros((), dtype=np.int64)
        elif len(shape) > 1:
            value = stream.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        else:
            low, high = {"running_var": (0.5, 1.5), "weight": (0.1, 0.5)}.get(kind, (-0.1, 0.1))
            value = stream.uniform(low, high, shape)
        weights[name] = torch.from_numpy(np.asarray(value))
    return weights


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_pyslowfast_has_its_place(name):
    shapes, _ = record(name)
    with torch.device("meta"):
        given = {k: torch.empty(shape) for k, shape in shapes.items()}
        own = network(name).state_dict()
    mapped = to_network_names(given, own)
    assert {k: v.shape for k, v in mapped.items()} == {k: v.shape for k, v in own.items()}


@pytest.mark.parametrize("name", CLIPS)
def test_a_pyslowfast_file_gives_pyslowfasts_output(name, tmp_path):
    shapes, logits = record(name)
    weights = {f"module.{k}": v for k, v in made_up(shapes).items()}
    content = {"epoch": 7, "model_state": weights, "optimizer_state": {"state": {}}, "cfg": "MODEL:\n  ARCH: i3d\n"}
    torch.save(content, tmp_path / "checkpoint.pyth")
    ours = network(name).double().eval()
    load_weights(ours, tmp_path / "checkpoint.pyth")
    clip = torch.from_numpy(np.random.RandomState(1).standard_normal((1, 3, *CLIPS[name])))
    with torch.no_grad():
        torch.testing.assert_close(ours(clip)[0, :6].tolist(), logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("lost", ["branch1_bn.running_var", "branch1.weight", "branch2.c_bn.bias"])
def test_an_incomplete_x3d_is_refused(lost, tmp_path):
    shapes, _ = record("x3d_m")
    del shapes[f"s2.pathway0_res0.{lost}"]
    torch.save({"model_state": made_up(shapes)}, tmp_path / "x3d_m.pyth")
    with pytest.raises(ValueError, match=r"x3d_m.pyth does not fit the network: .* unexpected: .*branch1_norm.bias"):
        load_weights(network("x3d_m"), tmp_path / "x3d_m.pyth")


def test_a_network_without_the_files_non_local_blocks_is_refused(tmp_path):
    shapes, _ = record("c2d_r50_nln")
    torch.save({"model_state": {name: torch.zeros(shape) for name, shape in shapes.items()}}, tmp_path / "nln.pyth")
    with pytest.raises(ValueError, match=r"nln.pyth does not .* 65 unexpected: blocks.3.non_local.1.conv_g"):
        load_weights(network("c2d_r50"), tmp_path / "nln.pyth")
