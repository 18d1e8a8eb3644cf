"""Whole videos' scores against loops in plain Python, and across two ranks with uneven, padded and empty shards."""

import copy
import math
import pickle
import sys

import pytest
import torch
import torch.distributed as dist
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from octvideo.evaluation import VideoScores, combine_views

NUM_CLASSES, NUM_VIDEOS, NUM_VIEWS = 7, 23, 3


def scored_views(num_classes=NUM_CLASSES, num_videos=NUM_VIDEOS, num_views=NUM_VIEWS, seed=3):
    """One row (probs, label, video, view) per view, in order of the videos."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_videos) % num_classes
    video = torch.arange(num_videos).repeat_interleave(num_views)
    view = torch.arange(num_views).repeat(num_videos)
    logits = torch.randn(len(video), num_classes, generator=generator)
    logits[torch.arange(len(video)), labels[video]] += 1.0
    return logits.softmax(dim=1), labels[video], video, view


def loop_oracle(probs, labels, videos, views):
    """Mean probabilities, label and number of distinct views by video, in plain Python."""
    seen, by_video = set(), {}
    for row in range(len(probs)):
        key = (int(videos[row]), int(views[row]))
        if key in seen:
            continue
        seen.add(key)
        by_video.setdefault(key[0], (int(labels[row]), []))[1].append(probs[row].double().tolist())
    return {
        video: ([sum(column) / len(rows) for column in zip(*rows, strict=True)], label, len(rows))
        for video, (label, rows) in by_video.items()
    }


def oracle_percent(expected, k):
    hits = 0
    for probs, label, _ in expected.values():
        ranked = sorted(range(len(probs)), key=lambda c: -probs[c])
        hits += label in ranked[:k]
    return 100.0 * hits / len(expected)


def check_against_oracle(results, expected):
    assert results.videos.tolist() == sorted(expected)
    for row, video in enumerate(results.videos.tolist()):
        probs, label, num_views = expected[video]
        assert results.probs[row].tolist() == pytest.approx(probs, abs=1e-12)
        assert (results.labels[row].item(), results.num_views[row].item()) == (label, num_views)


def test_videos_are_the_mean_of_their_distinct_views():
    views = scored_views()
    order = torch.randperm(len(views[0]))
    order = torch.cat([order, order[:11]])  # a sampler's padding
    shuffled = [x[order] for x in views]
    scores = VideoScores(NUM_CLASSES)
    for start in range(0, len(order), 8):
        scores.update(*(x[start : start + 8] for x in shuffled))
    results, expected = scores.compute(), loop_oracle(*views)
    check_against_oracle(results, expected)
    for k in (1, 2, 5):
        assert results.topk_percent(k) == pytest.approx(oracle_percent(expected, k))
    assert results.top1_percent == results.topk_percent(1)
    assert results.top5_percent == results.topk_percent(5)


def test_accuracies_agree_with_torchmetrics():
    results = combine_views(*scored_views())
    args = (results.probs, results.labels, NUM_CLASSES)
    for k, percent in ((1, results.top1_percent), (5, results.top5_percent)):
        assert percent == pytest.approx(100 * multiclass_accuracy(*args, top_k=k, average="micro").item(), abs=1e-4)
    macro = multiclass_accuracy(*args, average="macro").item()
    assert results.mean_class_percent == pytest.approx(100 * macro, abs=1e-4)
    assert torch.equal(results.confusion, multiclass_confusion_matrix(*args))


def test_order_of_views_changes_no_bit():
    views = scored_views()
    order = torch.randperm(len(views[0]))
    assert torch.equal(combine_views(*views).probs, combine_views(*(x[order] for x in views)).probs)


def test_class_without_video_is_nan_and_left_out_of_the_mean():
    probs = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]])
    results = combine_views(probs, torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert results.per_class_percent[:2].tolist() == [100.0, 0.0]
    assert math.isnan(results.per_class_percent[2])
    assert results.mean_class_percent == 50.0
    assert results.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_top5_of_fewer_than_five_classes_is_all_of_them():
    assert combine_views(*scored_views(num_classes=4)).top5_percent == 100.0


def test_ties_go_to_the_lower_class():
    results = combine_views(torch.full((1, 4), 0.25), torch.tensor([1]), torch.tensor([0]), torch.tensor([0]))
    assert results.predictions.tolist() == [0]
    assert (results.top1_percent, results.topk_percent(2)) == (0.0, 100.0)


def test_one_video_of_one_view_keeps_its_axes():
    scores = VideoScores(2)
    scores.update(torch.tensor([[0.9, 0.1]]), torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    results = scores.compute()
    assert (results.probs.shape, results.labels.shape, results.num_videos) == ((1, 2), (1,), 1)
    assert "top1_percent=100.00" in repr(results)


def test_reset_forgets():
    scores = VideoScores(NUM_CLASSES)
    scores.update(*scored_views())
    scores.reset()
    scores.update(*scored_views(num_videos=4))
    assert scores.compute().num_videos == 4


def test_missing_videos_are_counted():
    results = combine_views(*scored_views())
    assert results.num_missing is None
    results.num_expected = NUM_VIDEOS + 2
    assert results.num_missing == 2


def test_metric_survives_copy_and_pickle_and_takes_bfloat16():
    scores = VideoScores(NUM_CLASSES)
    probs, *rest = scored_views()
    scores.update(probs.bfloat16(), *rest)
    for other in (copy.deepcopy(scores), pickle.loads(pickle.dumps(scores))):
        assert torch.equal(other.compute().probs, scores.compute().probs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": torch.zeros(2, 5)}, r"probs should have shape \(N, 3\), got \(2, 5\)"),
        ({"probs": torch.tensor([[3.0, -1.0, 0.5], [0.2, 0.3, 0.5]])}, "softmax rows that sum to 1, got row 0"),
        ({"probs": torch.tensor([[0.2, 0.3, 0.5], [math.nan, 0.5, 0.5]])}, "got row 1 with sum nan"),
        ({"label": torch.tensor([0, 3])}, "label should be at least 0 and below 3, got 3"),
        ({"label": torch.tensor([0.0, 1.0])}, "label should be 2 integers"),
        ({"video": torch.tensor([0, -9])}, "video should be at least 0, got -9"),
        ({"view": torch.tensor([0, -1])}, "view should be at least 0, got -1"),
        ({"view": torch.tensor([0])}, r"view should be 2 integers of shape \(2,\)"),
    ],
)
def test_update_refuses(change, message):
    batch = {
        "probs": torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]),
        "label": torch.tensor([0, 1]),
        "video": torch.tensor([0, 1]),
        "view": torch.tensor([0, 0]),
    }
    with pytest.raises(ValueError, match=message):
        VideoScores(3).update(**(batch | change))


def test_other_errors():
    with pytest.raises(ValueError, match="num_classes should be at least 1, got 0"):
        VideoScores(0)
    with pytest.raises(ValueError, match="k should be at least 1, got 0"):
        combine_views(*scored_views()).topk_percent(0)
    with pytest.raises(ValueError, match=r"one per video, got \[0, 1\] for video 5"):
        combine_views(torch.eye(2), torch.tensor([0, 1]), torch.tensor([5, 5]), torch.tensor([0, 1]))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_compute_without_a_view():
    with pytest.raises(ValueError, match="at least one view, got none"):
        VideoScores(3).compute()


def test_a_video_that_is_left_out_counts_with_none_of_its_views():
    views = scored_views()
    scores = VideoScores(NUM_CLASSES)
    scores.leave_out([])
    scores.leave_out([5])  # before and after its views come
    for batch in torch.arange(NUM_VIDEOS * NUM_VIEWS).split(16):
        scores.update(*(x[batch] for x in views))
    scores.leave_out([8, 8, 20])
    results = scores.compute()
    kept = torch.tensor([video not in (5, 8, 20) for video in views[2].tolist()])
    check_against_oracle(results, loop_oracle(*(x[kept] for x in views)))
    assert results.num_videos == NUM_VIDEOS - 3
    scores.reset()
    scores.update(*views)
    assert scores.compute().num_videos == NUM_VIDEOS
    scores.leave_out(range(NUM_VIDEOS))
    with pytest.raises(ValueError, match="no video could be scored: each of the 23 that were tried is unreadable"):
        scores.compute()


def shards(kind, rank):
    """Row indices of one of two ranks."""
    rows = torch.arange(NUM_VIDEOS * NUM_VIEWS)
    if kind == "empty":
        return rows if rank == 0 else rows[:0]
    if kind == "padded":  # an odd number of rows, the last shard filled up from the front
        return torch.cat([rows, rows[:1]])[rank::2]
    return rows[:50] if rank == 0 else rows[40:]  # uneven, ten rows in both


def score_on_rank(rank, folder):
    """What one of two processes runs; its findings go to a file."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    views, found = scored_views(), {}
    for kind in ("empty", "padded", "uneven", "left out"):
        scores, rows = VideoScores(NUM_CLASSES), shards(kind, rank)
        for batch in rows.split(16) if len(rows) else ():
            scores.update(*(x[batch] for x in views))
        if kind == "left out" and rank == 1:
            scores.leave_out([3])  # views of it are with the other rank, too
        results = scores.compute()
        num_local = sum(len(x) for x in scores.probs)  # after compute each rank is left with its own views
        found[kind] = (results.probs, results.num_views, results.top1_percent, num_local)
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_the_scores_of_one(tmp_path, warm_python):
    warm_python.run(*[[__file__, rank, tmp_path] for rank in (0, 1)])
    others = scored_views()[2] != 3
    for rank in (0, 1):
        for kind, (probs, num_views, top1, num_local) in torch.load(tmp_path / f"rank{rank}.pt").items():
            alone = combine_views(*(x[others] if kind == "left out" else x for x in scored_views()))
            assert torch.equal(probs, alone.probs), kind
            assert num_views.tolist() == [NUM_VIEWS] * alone.num_videos
            assert top1 == alone.top1_percent
            assert num_local == len(shards(kind, rank))


if __name__ == "__main__":
    score_on_rank(int(sys.argv[1]), sys.argv[2])
