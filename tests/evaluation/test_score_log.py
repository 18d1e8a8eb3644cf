"""Scores on disk: exact, cut short anywhere without harm, and bound to what they belong to."""

import errno
import json

import pytest
import torch

from octvideo.evaluation import ScoreLog, combine_views

NUM_CLASSES, NUM_VIDEOS, NUM_VIEWS = 5, 6, 3
BELONGS_TO = {"checkpoint": "c0ffee", "views": {"num_clips": 3}}


def views(seed=1):
    generator = torch.Generator().manual_seed(seed)
    video = torch.arange(NUM_VIDEOS).repeat_interleave(NUM_VIEWS)
    probs = torch.randn(len(video), NUM_CLASSES, generator=generator).softmax(dim=1)
    return probs, video % NUM_CLASSES, video, torch.arange(NUM_VIEWS).repeat(NUM_VIDEOS)


def log(folder, rank=0, **changes):
    return ScoreLog(folder, {**BELONGS_TO, **changes}, num_classes=NUM_CLASSES, num_views=NUM_VIEWS, rank=rank)


def check_equal(results, expected=None):
    expected = combine_views(*views()) if expected is None else expected
    for name in ("videos", "probs", "labels", "num_views"):
        assert torch.equal(getattr(results, name), getattr(expected, name)), name


def test_results_are_those_of_the_views_to_the_last_bit(tmp_path):
    order = torch.randperm(NUM_VIDEOS * NUM_VIEWS)
    with log(tmp_path) as scores:
        for rows in torch.cat([order, order[:4]]).split(4):  # some come twice
            scores.add(*(x[rows] for x in views()))
    check_equal(scores.results())
    assert log(tmp_path).results(num_expected=8).num_missing == 2


@pytest.mark.parametrize("cut", [0, 1, 40, 100, 101, 250, 333])
def test_a_file_cut_anywhere_goes_on(tmp_path, cut):
    everything = views()
    with log(tmp_path) as scores:
        scores.add(*everything)
    path = tmp_path / "scores.0.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * cut // 334])
    scores = log(tmp_path)
    left = ~torch.isin(everything[2], torch.tensor(sorted(scores.done)))
    assert len(scores.done) == max(whole[: len(whole) * cut // 334].count(b"\n") - 1, 0)
    with scores:
        scores.add(*(x[left] for x in everything))
    check_equal(log(tmp_path).results())
    assert path.read_bytes() == whole


def test_a_crash_leaves_whole_videos_only(tmp_path):
    def broken_off():
        with log(tmp_path) as scores:
            scores.add(*(x[: NUM_VIEWS + 1] for x in views()))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        broken_off()
    assert log(tmp_path).done == {0}


def test_videos_with_fewer_views_count_at_a_regular_end(tmp_path):
    some = [x[:-1] for x in views()]
    with log(tmp_path) as scores:
        scores.add(*some)
    check_equal(scores.results(), combine_views(*some))


def test_files_of_any_number_of_processes_make_one_result(tmp_path):
    everything = views()
    for rank in range(3):
        with log(tmp_path, rank=rank) as scores:
            rows = everything[2] % 3 == rank
            scores.add(*(x[rows] for x in everything))
    check_equal(log(tmp_path).results())
    assert log(tmp_path, rank=5).done == set(range(NUM_VIDEOS))


def test_scores_of_something_else_are_refused(tmp_path):
    with log(tmp_path) as scores:
        scores.add(*views())
    with pytest.raises(ValueError, match=r"scores.0.jsonl holds scores of another evaluation: checkpoint was 'c0ffee'"):
        log(tmp_path, checkpoint="decaf")
    with pytest.raises(ValueError, match=r"fast was None and is 'bfloat16' now. Give what it was, or another --output"):
        log(tmp_path, fast="bfloat16")
    (tmp_path / "scores.0.jsonl").write_text("something\n")
    with pytest.raises(ValueError, match="is no file of scores: give another --output, or delete it"):
        log(tmp_path)


def test_a_damaged_line_is_scored_again(tmp_path):
    with log(tmp_path) as scores:
        scores.add(*views())
    path = tmp_path / "scores.0.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = "\0" * 50
    lines[4] = json.dumps({"video": 3, "label": 0, "num_views": 3, "probs": [1.0]})
    path.write_text("\n".join(lines) + "\n")
    assert log(tmp_path).done == {0, 2, 4, 5}


def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path):
    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    everything = views()
    scores = log(tmp_path)
    scores.add(*(x[:NUM_VIEWS] for x in everything))
    scores._file.close()
    scores._file = Full()
    with pytest.raises(OSError, match=r"scores.0.jsonl cannot be written: No space left.*make room and give the same"):
        scores.add(*(x[NUM_VIEWS:] for x in everything))
    assert log(tmp_path).done == {0}


def test_wrong_views_and_no_views(tmp_path):
    probs, *rest = views()
    with pytest.raises(ValueError, match="softmax rows that sum to 1"):
        log(tmp_path).add(2 * probs, *rest)
    with pytest.raises(ValueError, match="holds no scored video"):
        log(tmp_path).results()
