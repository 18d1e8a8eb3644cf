"""The motion set: reproducible, readable, and told apart by the order of its frames alone."""

import itertools
import platform
from collections import Counter

import av
import numpy as np
import pytest

from octvideo.data.motion import (
    CLASS_NAMES,
    REFERENCE_SPAN,
    STATE_NAMES,
    draw_states,
    render_video,
    synthesize_motion_set,
)

COUNTS = {"num_train": 24, "num_val": 8, "num_test": 8}


def _read_list(path):
    rows = [line.rsplit(" ", 1) for line in path.read_text().splitlines()]
    return [(name, int(label)) for name, label in rows]


def _decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        return frames, float(stream.average_rate), stream.codec_context.name


def _snapshot(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def motion_set(tmp_path_factory):
    return synthesize_motion_set(tmp_path_factory.mktemp("motion"), **COUNTS, seed=3)


def test_files_decode_and_vary(motion_set):
    sizes, rates, lengths = set(), set(), set()
    for split in ("train", "val", "test"):
        for name, _ in _read_list(getattr(motion_set, split)):
            frames, fps, codec = _decode(motion_set.folder / name)
            assert codec == "h264"
            assert frames.shape[1] % 2 == 0
            assert frames.shape[2] % 2 == 0
            sizes.add(frames.shape[1:3])
            rates.add(fps)
            lengths.add(len(frames))
    assert min(lengths) >= REFERENCE_SPAN
    assert len(sizes) > 3
    assert len(rates) > 2
    assert len(lengths) > 5


def test_encoded_frames_are_the_rendered_ones(motion_set):
    name, label = _read_list(motion_set.test)[5]
    rendered = render_video(label, seed=3, split="test", index=5)
    frames, fps, _ = _decode(motion_set.folder / name)
    assert frames.shape == rendered.frames.shape
    assert fps == rendered.fps
    assert np.abs(frames.astype(float) - rendered.frames).mean() < 6.0


def test_lists_are_balanced_and_name_every_file(motion_set):
    for split, count in (("train", 24), ("val", 8), ("test", 8)):
        rows = _read_list(getattr(motion_set, split))
        assert Counter(label for _, label in rows) == dict.fromkeys(range(8), count // 8)
        assert {name for name, _ in rows} == {f"{split}/{path.name}" for path in (motion_set.folder / split).iterdir()}
    assert (motion_set.folder / "classes.txt").read_text().splitlines() == list(CLASS_NAMES)


def test_labels_do_not_follow_the_file_numbers(motion_set):
    labels = [label for _, label in _read_list(motion_set.train)]
    assert labels != sorted(labels)
    assert labels[:8] != labels[8:16]


def test_same_seed_same_set_other_seed_other_set(motion_set, tmp_path):
    again = synthesize_motion_set(tmp_path / "again", **COUNTS, seed=3)
    assert _snapshot(again.folder) == _snapshot(motion_set.folder)
    video, other = (render_video(0, seed=seed, split="train", index=0) for seed in (3, 4))
    assert video.frames.shape != other.frames.shape or not np.array_equal(video.frames, other.frames)


def test_reuse_writes_no_video(motion_set):
    before = {path: path.stat().st_mtime_ns for path in motion_set.folder.rglob("*.mp4")}
    assert synthesize_motion_set(motion_set.folder, **COUNTS, seed=3) == motion_set
    assert before == {path: path.stat().st_mtime_ns for path in motion_set.folder.rglob("*.mp4")}


def test_interrupted_synthesis_is_completed(motion_set, tmp_path):
    class StopError(Exception):
        pass

    def interrupt(done, total):
        assert total == 40
        if done == 11:
            raise StopError

    with pytest.raises(StopError):
        synthesize_motion_set(tmp_path, **COUNTS, seed=3, progress=interrupt)
    assert not (tmp_path / "train.txt").exists()
    (tmp_path / "train" / f".00011.mp4.{platform.node()}.{2**30}.partial").write_bytes(b"half a video")  # of nobody
    calls = []
    synthesize_motion_set(tmp_path, **COUNTS, seed=3, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 40) for done in range(1, 41)]
    assert _snapshot(tmp_path) == _snapshot(motion_set.folder)


def test_half_a_record_is_no_other_file(motion_set, tmp_path):
    (tmp_path / f".motion_set.json.{platform.node()}.{2**30}.partial").write_bytes(b"{")
    synthesize_motion_set(tmp_path, **COUNTS, seed=3)
    assert _snapshot(tmp_path) == _snapshot(motion_set.folder)


def test_refuses_a_folder_with_another_set(motion_set):
    with pytest.raises(ValueError, match=r"already holds another motion set \(seed 3 there, 4 asked for\)"):
        synthesize_motion_set(motion_set.folder, **COUNTS, seed=4)


def test_refuses_a_folder_of_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'notes.txt' and no motion_set.json. Choose another folder"):
        synthesize_motion_set(tmp_path, **COUNTS)
    with pytest.raises(ValueError, match="should be a directory"):
        synthesize_motion_set(tmp_path / "notes.txt", **COUNTS)
    (tmp_path / "motion_set.json").write_text("{")
    with pytest.raises(ValueError, match="is not the record of a motion set"):
        synthesize_motion_set(tmp_path, **COUNTS)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_val": 7}, ValueError, "num_val should be at least 8"),
        ({"num_test": 8.0}, TypeError, r"num_test should be an integer number of videos, but it is 8.0"),
        ({"seed": -1}, ValueError, "seed should be 0 or more, but it is -1"),
        ({"seed": "a"}, TypeError, "seed should be an integer, but it is 'a'"),
    ],
)
def test_refuses_bad_arguments(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        synthesize_motion_set(tmp_path / "set", **{**COUNTS, **change})
    assert not (tmp_path / "set").exists()


def _draw_many(label, num_videos=200):
    """States (V, REFERENCE_SPAN, 4) of a class."""
    generator = np.random.default_rng(label)
    return np.stack([draw_states(label, REFERENCE_SPAN, generator).values for _ in range(num_videos)])


@pytest.mark.parametrize("label", range(8))
def test_only_the_class_dimension_has_a_net_drift(label):
    values = _draw_many(label)
    step = values[:, 1:] - values[:, :-1]
    spread = values.max(1) - values.min(1)
    net = (values[:, -1] - values[:, 0] + step.mean(1)) / spread  # the state after a whole span, in ranges
    for dimension, name in enumerate(STATE_NAMES):
        if dimension == label // 2:
            sign = 1 if CLASS_NAMES[label] in {"move_right", "move_down", "rotate_clockwise", "approach"} else -1
            assert (np.sign(step[..., dimension]) == sign).all(), name
        else:
            assert abs(np.mean(np.sign(step[..., dimension]))) < 0.05, name
            assert np.abs(net[:, dimension]).max() < 0.3, name


def test_unordered_states_have_the_same_distribution_in_every_class():
    """Spread of each dimension within clips and over all of them, class against class."""
    # The angle swings over 0.7 of the range that it drifts over (states.py), so its spread may differ by that much.
    tolerance = np.tile([0.12, 0.12, 0.45, 0.12], 2)  # 1 / 0.7 - 1, and the noise of the others
    summaries = []
    for label in range(8):
        clips = np.sort(_draw_many(label, 400)[:, ::4], axis=1)  # sorting forgets the order
        centred = clips - clips.mean(1, keepdims=True)
        summaries.append(np.concatenate((centred.std(1).mean(0), clips.std((0, 1)))))
    for one, other in itertools.combinations(summaries, 2):
        assert (np.abs(one - other) <= tolerance * other).all(), np.abs(one - other) / other


def test_left_reversed_in_time_is_a_right():
    left, right = _draw_many(0)[:, ::-1], _draw_many(1)
    np.testing.assert_allclose(np.diff(left, axis=1).mean((0, 1)), np.diff(right, axis=1).mean((0, 1)), atol=0.005)
    np.testing.assert_allclose(np.diff(left, axis=1).std((0, 1)), np.diff(right, axis=1).std((0, 1)), rtol=0.05)
    # Seen without its order, a reversed video is the same video.
    frames = render_video(0, seed=0, split="train", index=0).frames
    np.testing.assert_array_equal(np.sort(frames[::-1], axis=0), np.sort(frames, axis=0))


def _bright_centre(frames):
    """Centre (x, y) of the bright pixels in every frame: the object, over a dark background."""
    weight = np.clip(frames.astype(float).max(-1) - 150.0, 0.0, None)
    rows, columns = np.mgrid[: frames.shape[1], : frames.shape[2]]
    total = weight.sum((1, 2)) + 1e-9
    return (weight * columns).sum((1, 2)) / total, (weight * rows).sum((1, 2)) / total


@pytest.mark.parametrize("label", range(4))
def test_pixels_move_as_the_class_says(label):
    """The bright object's centre, measured in the pixels, drifts as the class says."""
    drifts = []
    for index in range(12):
        x, y = _bright_centre(render_video(label, seed=1, split="train", index=index).frames[:REFERENCE_SPAN])
        drifts.append((x[-4:].mean() - x[:4].mean(), y[-4:].mean() - y[:4].mean()))
    drift = np.mean(drifts, axis=0)
    expected = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1)}[label]
    assert drift @ expected > 5.0
    assert abs(drift[::-1] @ expected) < 4.0
