"""Peers beside octvideo: who is there, and what their figures are measured against."""

import sys

import pytest

from octvideo.benchmarks import benchmark_peers, peers
from octvideo.report import plot_peers


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "view_size", lambda name: (4, 32, 32))
        return benchmark_peers(["layer", "r3d_18"], alpha=[0.5], compiled=False, rounds=2)


def test_every_form_is_there_and_costs_are_counted(rows):
    assert [(row["what"], row["by"], row["alpha"], row["variant"]) for row in rows] == [
        ("layer", "torch", 0, "eager"),
        ("layer", "octconv", 0.5, "eager"),
        ("layer", "octvideo", 0.5, "eager"),
        ("layer", "octvideo", 0.5, "fast"),
        ("r3d_18", "torchvision", 0, "eager"),
        ("r3d_18", "octvideo", 0, "eager"),
        ("r3d_18", "octvideo", 0, "fast"),
        ("r3d_18", "octvideo", 0.5, "eager"),
        ("r3d_18", "octvideo", 0.5, "fast"),
    ]
    macs = [row["gmacs"] for row in rows]
    assert macs[0] == pytest.approx(64 * 64 * 9 * 112 * 112 / 1e9)
    assert macs[2] == macs[3] == pytest.approx(macs[0] * (0.25 + 0.75 / 4))
    assert macs[4] == macs[5] == macs[6] > macs[7] == macs[8]


def test_speedups_are_over_the_dense_peer_as_it_is(rows):
    for what in ("layer", "r3d_18"):
        timed = [row for row in rows if row["what"] == what and row["median_ms"]]
        assert timed[0]["speedup"] == 1
        for row in timed:
            assert row["speedup"] == pytest.approx(timed[0]["median_ms"] / row["median_ms"])


def test_a_peer_that_is_missing_or_fails_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "octconv", None)
    monkeypatch.setitem(peers._WAYS, "fast", lambda network, x: 1 / 0)
    rows = benchmark_peers(["layer"], compiled=False, rounds=2)
    by = {(row["by"], row["variant"]): row for row in rows}
    assert by["octconv", "eager"]["reason"] == "not installed: pip install 'octvideo[peers]'"
    assert by["octconv", "eager"]["median_ms"] is None
    assert by["octvideo", "fast"]["reason"] == "ZeroDivisionError: division by zero"
    assert by["octvideo", "eager"]["median_ms"] > 0


def test_networks_that_are_not_known_are_named():
    with pytest.raises(ValueError, match=r"networks must be of c2d_r50, .*, layer; got \['r4d'\]"):
        benchmark_peers(["r4d"])


def test_the_picture_has_a_panel_for_each_network(rows, tmp_path):
    plot_peers(rows, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
