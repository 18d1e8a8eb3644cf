"""Multiply-adds and parameters of every builder: pinned, and against what others published for the same network."""

import functools

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from octvideo.analysis import cost_table, count_macs
from octvideo.analysis.shapes import ShapesOnly
from octvideo.models import BUILDERS, IMAGE_BUILDERS, build_model, mobilenet_v1, mobilenet_v2
from octvideo.models.build import view_size

ALPHAS = (0, 0.25, 0.5, 0.1, 0.125, 0.2)

# Multiply-adds of convolutions and matrix products, in 1e9, of one view of the network's own size at the first of
# ALPHAS, and parameters in 1e6; 400 classes of videos, 1000 of images.
GMACS = {
    "c2d_r50": ((19.49, 14.71, 11.15, 17.51, 16.95, 15.65), 24.33),
    "i3d_r50": ((28.41, 22.10, 17.44, 25.78, 25.05, 23.33), 28.04),
    "i3d_r101": ((46.96, 34.56), 51.75),
    "slow_r50": ((41.74, 31.66), 32.45),
    "i3d_r50_nln": ((36.54, 28.56, 22.72, 33.19), 35.40),
    "c2d_r50_nln": ((27.62, 21.17, 16.42, 24.92), 31.69),
    "slowfast_r50_4x16": ((27.64, 21.48, 16.85), 34.48),
    "slowfast_r50_8x8": ((50.31, 38.64), 34.57),
    "slowfast_r101_8x8": ((96.40, 69.60), 62.83),
    "x3d_xs": ((0.6053, 0.4392, 0.3123), 3.79),
    "x3d_s": ((1.9629, 1.4231, 1.0107), 3.79),
    "x3d_m": ((4.7325, 3.4166, 2.4119), 3.79),
    "x3d_l": ((18.37, 12.95, 8.8757), 6.15),
    "r2plus1d_r50": ((57.53, 41.85, 30.14), 28.11),
    "csn_r101": ((56.47, 43.02), 22.21),
    "s3d": ((17.98, 13.75, 10.72), 8.32),
    "r3d_18": ((40.70, 29.69, 21.42), 33.37),
    "mc3_18": ((43.34, 32.81, 24.88), 11.70),
    "r2plus1d_18": ((40.52, 29.25, 20.83), 31.51),
    "resnet3d_tiny": ((0.2884, 0.2462, 0.2117, 0.2717, 0.2663, 0.2559), 0.556),
    "resnet3d_small": ((3.4566, 2.8302, 2.3094, 3.2187, 3.1302, 2.9636), 2.457),
    "energy_resnet3d": ((0.0913, 0.0754, 0.0629, 0.0854, 0.0829, 0.0791), 1.337),
    "resnet18": ((1.8141, 1.4269, 1.1373), 11.69),
    "resnet26": ((2.3423, 1.8582), 16.00),
    "resnet34": ((3.6638, 2.7455), 21.80),
    "resnet50": ((4.0892, 3.1035, 2.3671), 25.56),
    "resnet101": ((7.8014, 5.5977), 44.55),
    "resnet152": ((11.51, 8.09), 60.19),
    "resnet200": ((15.01, 10.44), 64.67),
    "se_resnet50": ((4.0917, 3.1060, 2.3697), 28.09),
    "se_resnet152": ((11.52, 8.0984, 5.6219), 66.82),
    "resnext50_32x4d": ((4.2305, 3.1710, 2.3865), 25.03),
    "resnext101_32x4d": ((7.9700, 5.6835, 4.0226), 44.18),
    "densenet121": ((2.8342, 2.0172, 1.4186), 7.98),
    "mobilenet_v1": ((0.5687, 0.4254, 0.3182), 4.23),
    "mobilenet_v2": ((0.3008, 0.2653, 0.2299), 3.50),
}


def on_meta(name, alpha=0):
    with ShapesOnly(), torch.device("meta"):
        return build_model(name, num_classes=400 if name in BUILDERS else 1000, alpha=alpha).eval()


@functools.cache
def counted(name, alpha):
    """Multiply-adds in 1e9 of a view of the network's own size, and parameters: both are asked for more than once."""
    model = on_meta(name, alpha)
    return gmacs(model, view_size(name)), sum(p.numel() for p in model.parameters())


UPSAMPLING = (torch.ops.aten.upsample_nearest2d, torch.ops.aten.upsample_nearest3d)
UNCOUNTED = {getattr(op, name): lambda *args, **kwargs: 0 for op in UPSAMPLING for name in op.overloads()}


def gmacs(model, size):
    """By torch's counter, which counts convolutions and products.

    Norms, and up-sampling taken apart, have none of these, and would take most of the time on the meta device.
    """
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.forward = lambda maps: maps
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter, torch.no_grad():
        model(torch.empty((1, 3, *size), device="meta"))
    return counter.get_total_flops() / 2e9  # torch counts two operations per multiply-add


@pytest.mark.parametrize("name", [*BUILDERS, *IMAGE_BUILDERS])
def test_counted_multiply_adds_and_parameters(name):
    expected, parameters_m = GMACS[name]
    for alpha, value in zip(ALPHAS, expected, strict=False):
        macs, parameters = counted(name, alpha)
        assert macs == pytest.approx(value, rel=0.005)
        assert parameters / 1e6 == pytest.approx(parameters_m, abs=0.01)


TORCHVISION = {
    "r3d_18": "R3D_18",
    "mc3_18": "MC3_18",
    "r2plus1d_18": "R2Plus1D_18",
    "s3d": "S3D",
    "resnet18": "ResNet18",
    "resnet34": "ResNet34",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "resnext50_32x4d": "ResNeXt50_32X4D",
    "densenet121": "DenseNet121",
    "mobilenet_v2": "MobileNet_V2",
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_dense_costs_are_those_that_torchvision_states(name):
    meta = torchvision.models.get_weight(f"{TORCHVISION[name]}_Weights.DEFAULT").meta
    macs, parameters = counted(name, 0)
    assert round(macs, 3) == meta["_ops"]
    assert parameters == meta["num_params"]


@pytest.mark.parametrize(("name", "published"), [("x3d_xs", 0.60), ("x3d_s", 1.96), ("x3d_m", 4.73), ("x3d_l", 18.37)])
def test_x3d_costs_what_pyslowfast_states(name, published):
    assert counted(name, 0)[0] == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize(("name", "published"), [("r2plus1d_r50", 76.45), ("csn_r101", 75.62)])
def test_costs_at_256_pixels_are_near_those_of_pytorchvideos_model_zoo(name, published):
    """Its tables count norms and more element-wise layers."""
    report = count_macs(on_meta(name), torch.empty(1, 3, view_size(name)[0], 256, 256, device="meta"))
    assert report.gmacs_with_norm == pytest.approx(published, rel=0.02)


def test_non_local_blocks_cost_what_the_paper_states():
    """33.3 without the products of attention (Chen et al. 2019, table 8), with a first pooling that is not padded."""
    report = count_macs(on_meta("i3d_r50_nln"), torch.empty(1, 3, 8, 224, 224, device="meta"))
    assert report.conv_macs / 1e9 == pytest.approx(33.3 + 0.3, abs=0.1)
    assert report.matmul_macs / 1e9 == pytest.approx(2.99, abs=0.01)


@pytest.mark.parametrize(
    ("builder", "width", "alpha", "published_mmacs", "parameters_m"),
    [
        (mobilenet_v1, 0.75, 0, 325, 2.6),
        (mobilenet_v1, 0.75, 0.375, 213, 2.6),
        (mobilenet_v1, 1.0, 0.5, 321, 4.2),
        (mobilenet_v2, 1.0, 0, 300, 3.5),
        (mobilenet_v2, 1.0, 0.375, 256, 3.5),
        (mobilenet_v2, 1.125, 0.5, 295, 4.2),
    ],
)
def test_mobilenets_cost_what_the_paper_states(builder, width, alpha, published_mmacs, parameters_m):
    """Chen et al. 2019, table 5, counts the pooling, too."""
    with torch.device("meta"):
        model = builder(width=width, alpha=alpha)
    report = count_macs(model, torch.empty(1, 3, 224, 224, device="meta"))
    mmacs = (report.macs + report.pool_macs) / 1e6
    if builder is mobilenet_v2 and alpha:
        mmacs += first_block_of_the_released_v2(int(32 * width), int(16 * width), alpha)
    assert mmacs == pytest.approx(published_mmacs, rel=0.006)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters_m, abs=0.05)


def first_block_of_the_released_v2(channels, out_channels, alpha):
    """What its octave form costs more, in 1e6: one more 1x1 convolution, which splits; then all runs on pairs."""
    positions, relative = 112 * 112 / 1e6, 1 - 0.75 * alpha
    dense_rest = channels * (9 + out_channels) * positions
    return channels * channels * positions * relative + dense_rest * (relative - 1)


def test_the_papers_residual_networks():
    """The cost axis of Chen et al. 2019, figure 4, read to a tenth, against the table above."""
    published = {"resnet26": 1.9, "resnet50": 3.1, "resnet101": 5.6, "resnet200": 10.5}
    for name, value in published.items():
        assert GMACS[name][0][ALPHAS.index(0.25)] == pytest.approx(value, abs=0.1)


def test_the_cost_table_takes_images():
    rows = cost_table(lambda alpha: build_model("resnet18", num_classes=1000, alpha=alpha), (0, 0.5), (3, 224, 224))
    assert [round(row["gmacs"], 3) for row in rows] == [1.814, 1.137]
