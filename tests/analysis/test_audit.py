"""The audit of the paper's costs: pinned counts, formulas by hand, and the committed result against today's counts."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from octvideo.analysis import audit_network, published_figures, published_networks
from octvideo.analysis.audit import audit_layer, audit_nonlocal
from octvideo.analysis.readings import (
    build,
    count,
    count_rounded_down,
    last_stage_octave,
    released_mobilenet_v2,
    released_resnet152,
    unpadded,
)
from octvideo.layers import OctConv3d

RESULTS = Path(__file__).resolve().parents[2] / "results" / "paper_audit"
COMMITTED = json.loads((RESULTS / "audit.json").read_text(encoding="utf-8"))


def printed(model, alpha):
    return next(r for r in published_networks() if (r.model, r.alpha) == (model, alpha))


@pytest.mark.parametrize(
    ("model", "alpha", "counted", "readings", "status", "reason"),
    [
        ("resnet50", 0.25, 3.10353, [], "agrees", "^$"),
        ("resnet50", 0.5, 2.36714, [], "explained", "^printed with one decimal$"),
        ("resnet26", 0.25, 1.85816, [], "explained", "^read off the figure, to 0.1 GFLOPs$"),
        ("mobilenet_v2", 0.375, 247.621, [254.031], "explained", "^as released.*: 254.0, with average pooling 256.3$"),
        ("i3d_r50", 0, 28.40766, [28.10941], "explained", r"without padding \(maps of 55x55\): 28.11$"),
        ("i3d_r50", 0.5, 17.44435, [17.3635, 15.8331, 15.4169], "explained", "misprint.*rounded down.*: 15.42$"),
        ("i3d_r50_nln", 0.1, 33.19074, [29.95379], "open", "^neither the paper nor its code says where"),
    ],
)
def test_counts_and_reasons(model, alpha, counted, readings, status, reason):
    row = audit_network(printed(model, alpha))
    assert row["counted"] == pytest.approx(counted, rel=1e-5)
    assert [r["counted"] for r in row["readings"]] == pytest.approx(readings, rel=1e-4)
    assert row["difference_percent"] == pytest.approx(100 * (counted / row["published"] - 1), abs=1e-3)
    assert row["status"] == status
    assert re.search(reason, row["reason"])


@pytest.mark.parametrize(
    ("model", "alpha", "reading", "expected"),
    [
        ("i3d_r50", 0.1, lambda row: unpadded(build(row)), 25.53),
        ("i3d_r50", 0.5, lambda row: unpadded(last_stage_octave(row)), 15.83),
        ("mobilenet_v2", 0.375, released_mobilenet_v2, 0.2540),
        ("resnet152", 0.125, released_resnet152, 10.82),
    ],
)
def test_torchs_counter_says_the_same_of_the_readings(model, alpha, reading, expected):
    row = printed(model, alpha)
    net = reading(row).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty((1, 3, *row.size), device="meta"))
    counted = count(net, row)
    assert counted.macs == counter.get_total_flops() / 2
    assert counted.macs / 1e9 == pytest.approx(expected, rel=5e-4)
    assert counted.params == sum(p.numel() for p in net.parameters())


def test_the_released_first_block_costs_what_its_convolutions_say():
    """One 1x1 convolution more, which splits, and from then on three that run on pairs instead of dense maps."""
    row = printed("mobilenet_v2", 0.375)
    positions, relative = 112 * 112, 1 - 0.75 * 0.375
    expected = positions * (32 * 32 * relative + 32 * (9 + 16) * (relative - 1))
    assert count(released_mobilenet_v2(row), row).macs - count(build(row), row).macs == expected


def test_low_maps_rounded_down_by_hand():
    """Convolutions on 7x7: 3x3 low elements in place of 4x4 on the three paths that meet the low part."""
    row = printed("i3d_r50", 0.5)
    net = torch.nn.Sequential(
        OctConv3d(3, 8, 1, bias=False, alpha_in=0, alpha_out=0.25, device="meta"),
        OctConv3d(8, 8, 3, padding=1, bias=False, alpha_in=0.25, alpha_out=0.25, device="meta"),
        OctConv3d(8, 4, 1, stride=(1, 2, 2), bias=False, alpha_in=0.25, alpha_out=0, device="meta"),
    )
    small = type(row)(**{**vars(row), "size": (2, 7, 7)})
    saved = 2 * (16 - 9) * (3 * 2 + 27 * (6 * 2 + 2 * 6 + 2 * 2))  # the last one has the high output's size
    assert count(net, small).macs - count_rounded_down(net, small).macs == saved


def test_table_1_is_the_papers_formula():
    for row in audit_layer():
        alpha = row["alpha"]
        assert row["flops_counted_percent"] == pytest.approx(100 * (1 - 0.75 * alpha * (2 - alpha)))
        assert row["memory_counted_percent"] == pytest.approx(100 * (1 - 0.75 * alpha))
    reasons = {r["alpha"]: r["flops_reason"] + r["memory_reason"] for r in audit_layer()}
    assert reasons[0.75] == "printed as whole per cent"
    assert "gives 34.4, which rounds to 34" in reasons[0.875]
    assert not any(reasons[alpha] for alpha in (0, 0.125, 0.25, 0.5, 1))


def test_the_nonlocal_options_by_hand():
    """All five dense blocks cost the same: half the channels twice at full size, and twice on maps pooled by 2x2."""
    dense = 5 * 2.5 * 512 * 256 * 4 * 28 * 28 / 1e9
    rows = {row["option"]: row for row in audit_nonlocal()}
    blocks = {key: row["blocks_gmacs"] / dense for key, row in rows.items()}
    assert blocks["a"] == pytest.approx(1)
    assert blocks["b"] == pytest.approx(1 - 0.075, abs=2e-3)
    assert blocks["c"] == pytest.approx(1 - 0.75 * 0.1 * 1.9, abs=4e-3)
    assert blocks["d"] == pytest.approx(0.81, abs=2e-3)
    assert blocks["e"] == pytest.approx((2 * 0.81 + 2 * 0.09 / 4) / 2.5, abs=2e-3)
    # At the low part's size, the pooled keys of a 7x7 map have 3x3 elements.
    assert blocks["f"] == pytest.approx((2 * 2.5 / 4 + 3 * (2 / 4 + 2 * 9 / 196)) / 12.5)
    assert rows["c"]["total_gmacs"] == pytest.approx(29.9546, abs=1e-3)
    assert {row["printed_gmacs"] for row in rows.values()} == {28.9}


def test_option_c_is_the_network_that_is_built():
    row = printed("i3d_r50_nln", 0.1)
    built = count(unpadded(build(row)), row, attention=False).macs / 1e9
    [chosen] = [r for r in audit_nonlocal() if r["option"] == "c"]
    assert built == pytest.approx(chosen["total_gmacs"], abs=0.002)  # but for the last linear layer


def test_the_committed_audit_has_every_printed_row_and_a_reason_for_every_difference():
    rows = COMMITTED["networks"]
    assert len(rows) == len(published_networks()) == 53
    for row, published in zip(rows, published_networks(), strict=True):
        assert {name: row[name] for name in ("network", "alpha", "published")}.items() <= vars(published).items()
        assert row["reason"] or abs(row["difference_percent"]) <= 1
    layer = published_figures()["layer"]
    assert [r["alpha"] for r in COMMITTED["layer"]] == layer["alpha"]
    assert [r["memory_published_percent"] for r in COMMITTED["layer"]] == layer["memory_percent"]


@pytest.mark.parametrize(("model", "alpha"), [("resnet50", 0.75), ("resnext50_32x4d", 0.5), ("c2d_r50", 0.1)])
def test_the_committed_audit_is_what_the_code_counts(model, alpha):
    row = audit_network(printed(model, alpha))
    same = ("source", "network", "alpha")
    [found] = [r for r in COMMITTED["networks"] if all(r[name] == row[name] for name in same)]
    for name in ("counted", "pool", "difference_percent", "params_counted_m", "activation_percent"):
        assert found[name] == pytest.approx(row[name], rel=1e-5, abs=1e-6), name
    assert (found["upsample_elements"], found["reason"]) == (row["upsample_elements"], row["reason"])
    assert COMMITTED["nonlocal_options"][2]["total_gmacs"] == pytest.approx(29.954616)


def test_parameters_are_the_printed_ones():
    for row in COMMITTED["networks"]:
        if "params_m" in row:
            assert row["params_counted_m"] == pytest.approx(row["params_m"], abs=0.05)
