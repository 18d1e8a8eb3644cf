"""The lines and the picture of layers' times."""

import matplotlib.image
import numpy as np

from octvideo.report import layer_lines, plot_layers, slow_layer_lines


def layer(kernel, alpha, time_ratio, **changes):
    row = {"kernel": kernel, "size": "8x7x7", "variant": "eager", "alpha": alpha, "time_ratio": time_ratio}
    return row | {"pays": time_ratio < 1, "macs_ratio": 1 - alpha} | changes


def test_lines_count_what_pays():
    rows = [layer("1x1x1", 0.25, 2.0), layer("1x1x1", 0.5, 0.5), layer("1x1x1", 0.25, 0.9), layer("1x1x1", 0.5, 0.7)]
    rows += [layer("3x3x3", 0.5, 1.25)]
    assert layer_lines(rows) == [
        "eager 1x1x1, faster than dense: alpha 0.25 1 of 2 (median time ratio 1.45), "
        "alpha 0.5 2 of 2 (median time ratio 0.60)",
        "eager 3x3x3, faster than dense: alpha 0.5 0 of 1 (median time ratio 1.25)",
    ]


def slow(alpha, names, slow_names, lost_ms, octave_ms=3.0):
    row = {"alpha": alpha, "names": names, "slow_names": slow_names, "lost_ms": lost_ms}
    return row | {"dense_ms": 2.0, "octave_ms": octave_ms}


def test_lines_of_slow_layers_can_be_given_to_octavize():
    rows = [
        *(slow(0.25, ["a", "b"], ["a", "b"], 2.0), slow(0.25, ["c", "c"], [], -1.5)),
        *(slow(0.25, [""], [], 9.0, 12.0), slow(0.25, [""], [], 5.0, 8.0)),
        *(slow(0.5, ["a"], [], -1.0), slow(0.5, [""], [], -1.0, 1.0)),
    ]
    first, names, second = slow_layer_lines(rows)
    assert first == (
        "alpha 0.25: 2 of 3 octave convolutions take longer than dense ones, in all 2.0 ms; "
        "network 12.0 ms, dense 2.0 ms, with these dense 8.0 ms"
    )
    assert second == ("alpha 0.5: 0 of 1 octave convolutions take longer than dense ones; network 1.0 ms, dense 2.0 ms")
    keep_dense = eval(names.partition("=")[2])
    assert [name for name in "abc" if keep_dense(name, None)] == ["a", "b"]


def test_layers_are_not_named_where_keeping_them_dense_gains_nothing():
    rows = [slow(0.5, ["a"], ["a"], 1.0), slow(0.5, [""], [], 0.0, 9.0), slow(0.5, [""], [], 1.0, 9.5)]
    text, advice = slow_layer_lines(rows)
    assert text.endswith("network 9.0 ms, dense 2.0 ms, with these dense 9.5 ms")
    assert advice == "  keeping all of these dense gains nothing"


def test_the_picture_has_a_panel_for_each_variant_and_a_colour_for_each_kernel(tmp_path):
    rows = [
        layer(kernel, alpha, ratio, variant=variant)
        for variant in ("eager", "fast")
        for kernel, ratio in (("1x1x1", 1.6), ("3x3x3", 0.6))
        for alpha in (0.25, 0.5)
    ]
    plot_layers(rows, tmp_path / "new" / "both.png")
    plot_layers(rows[:4], tmp_path / "one.png")
    both, one = (matplotlib.image.imread(tmp_path / name) for name in ("new/both.png", "one.png"))
    assert both.shape[1] == 2 * one.shape[1]
    for colour in ("#0072B2", "#D55E00"):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(one[..., :3] - rgb).max(-1) < 0.01).sum() > 20
