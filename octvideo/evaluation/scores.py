"""Scores of whole videos: softmax averaged over each video's views, every view counted once on any number of ranks."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

# bfloat16 rounds each of K terms to 8 bits, and the rounding errors of a row's sum stay below this.
_ROW_SUM_TOLERANCE = 0.05


class VideoResults:
    """Scores of V videos over K classes, and the accuracies computed from them.

    A plain class and no dataclass: torchmetrics squeezes one-element tensors inside a returned dataclass, and
    a set of one video would lose its axis.

    Args:
        videos: index of each video, ascending.
        probs: softmax averaged over the video's views.
        labels: true class of each video.
        num_views: distinct views that were averaged.
        num_expected: videos that the set has, when that is known.

    Shape:
        videos, labels, num_views (V,) int64; probs (V, K) float64.
    """

    def __init__(
        self, videos: Tensor, probs: Tensor, labels: Tensor, num_views: Tensor, num_expected: int | None = None
    ) -> None:
        self.videos = videos
        self.probs = probs
        self.labels = labels
        self.num_views = num_views
        self.num_expected = num_expected

    def __repr__(self) -> str:
        return (
            f"VideoResults(num_videos={self.num_videos}, num_classes={self.num_classes}, "
            f"top1_percent={self.top1_percent:.2f}, top5_percent={self.top5_percent:.2f})"
        )

    @property
    def num_videos(self) -> int:
        """Number of videos that were scored."""
        return self.videos.numel()

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.probs.shape[1]

    @property
    def num_missing(self) -> int | None:
        """Videos of the set that no view of was scored; None when the set's size was not given."""
        return None if self.num_expected is None else self.num_expected - self.num_videos

    @property
    def ranking(self) -> Tensor:
        """Classes from likely to unlikely, (V, K); of equal classes the lower index comes first."""
        return self.probs.sort(dim=1, descending=True, stable=True).indices

    @property
    def predictions(self) -> Tensor:
        """Most likely class of each video, (V,)."""
        return self.ranking[:, 0]

    @property
    def top1_percent(self) -> float:
        """Percentage of videos whose most likely class is the true one."""
        return self.topk_percent(1)

    @property
    def top5_percent(self) -> float:
        """Percentage of videos whose true class is among the five likeliest (among all, when K < 5)."""
        return self.topk_percent(5)

    def topk_percent(self, k: int) -> float:
        """Percentage of videos whose true class is among the min(k, K) likeliest.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"k should be at least 1, got {k}. Ask for topk_percent(1) or more.")
        hits = (self.ranking[:, :k] == self.labels[:, None]).any(dim=1)
        return 100.0 * hits.double().mean().item()

    @property
    def confusion(self) -> Tensor:
        """Counts [true class, predicted class], (K, K) int64."""
        cells = self.labels * self.num_classes + self.predictions
        return torch.bincount(cells, minlength=self.num_classes**2).reshape(self.num_classes, self.num_classes)

    @property
    def per_class_percent(self) -> Tensor:
        """Percentage of each class's videos that are predicted right, (K,) float64; nan where a class has no video."""
        counts = self.confusion.double()
        return 100.0 * counts.diagonal() / counts.sum(dim=1)

    @property
    def mean_class_percent(self) -> float:
        """Mean of per_class_percent over the classes that have a video."""
        return self.per_class_percent.nanmean().item()


def combine_views(probs: Tensor, labels: Tensor, videos: Tensor, views: Tensor) -> VideoResults:
    """Average the views of each video, p(video) = mean over its distinct views of p(view).

    A (video, view) that comes more than once, as from a sampler that pads its shards, counts once. The sum runs in
    float64 in the order of the views, so it does not depend on the order or the rank that the views came from.

    Args:
        probs: softmax of each view.
        labels: true class of the view's video.
        videos: index of the view's video.
        views: index of the view within its video.

    Shape:
        probs (N, K); labels, videos, views (N,). The result has one row per distinct video.

    Raises:
        ValueError: there is no view, or one video comes with two labels.
    """
    if len(probs) == 0:
        raise ValueError("probs should hold at least one view, got none. Call update with scored views before compute.")
    probs, labels, videos, views = (x.detach().cpu() for x in (probs, labels, videos, views))
    order = views.argsort(stable=True)
    order = order[videos[order].argsort(stable=True)]
    keys = torch.stack([videos[order], views[order]], dim=1)
    first = torch.ones(len(keys), dtype=torch.bool)
    first[1:] = (keys[1:] != keys[:-1]).any(dim=1)
    _check_one_label_per_video(videos, labels)

    order = order[first]
    ids, rows, num_views = torch.unique_consecutive(videos[order], return_inverse=True, return_counts=True)
    sums = torch.zeros(len(ids), probs.shape[1], dtype=torch.float64).index_add_(0, rows, probs[order].double())
    video_labels = torch.zeros_like(ids).index_copy_(0, rows, labels[order].to(ids.dtype))
    return VideoResults(ids, sums / num_views[:, None], video_labels, num_views)


class VideoScores(Metric):
    """Collect the softmax of single views and reduce it to scores of whole videos, also across ranks.

    Every (video, view) counts once, whatever a sampler repeats to fill its shards, and ranks may hold different
    numbers of views or none. A video of which a view cannot be read is left out as a whole. The state holds every
    view's scores until compute: N views * K classes * 4 bytes, 0.95 GB for the 20 thousand validation videos of
    Kinetics-400 at 30 views.

    Args:
        num_classes: classes K.
        **kwargs: torchmetrics' own options.

    Raises:
        ValueError: num_classes is below 1.

    Example:
        >>> scores = VideoScores(num_classes=2)
        >>> probs = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
        >>> scores.update(probs, torch.tensor([0, 0]), torch.tensor([4, 4]), torch.tensor([0, 1]))
        >>> round(scores.compute().probs[0, 0].item(), 4)
        0.6
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    probs: list[Tensor]
    labels: list[Tensor]
    videos: list[Tensor]
    views: list[Tensor]
    left_out: list[Tensor]

    def __init__(self, num_classes: int, **kwargs) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError(f"num_classes should be at least 1, got {num_classes}. Pass the number of classes.")
        self.num_classes = num_classes
        for name in ("probs", "labels", "videos", "views", "left_out"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, probs: Tensor, label: Tensor, video: Tensor, view: Tensor) -> None:
        """Add a batch of views.

        Args:
            probs: softmax of each view, rows that sum to 1.
            label: true class of each view's video.
            video: index of each view's video in the set.
            view: index of each view within its video.

        Shape:
            probs (N, K); label, video, view (N,).

        Raises:
            ValueError: a shape, a label, an index or a row's sum is not what is stated above.
        """
        check_views(probs, label, video, view, self.num_classes)
        self.probs.append(probs.detach().float())
        self.labels.append(label.detach().long())
        self.videos.append(video.detach().long())
        self.views.append(view.detach().long())

    def leave_out(self, videos: Iterable[int]) -> None:
        """Leave videos out of the scores, whatever views of them are added: one that cannot be read, for example."""
        indices = torch.tensor(list(videos), dtype=torch.long, device=self.device)
        if len(indices):
            self.left_out.append(indices)
            self._computed = None  # an answer that torchmetrics keeps

    def sync(self, *args, **kwargs) -> None:
        """Gather the views of all ranks."""
        # torchmetrics stands in a 1-D float tensor for a rank without items, which has neither these states' axes nor
        # their types: the gather would stop or hang.
        self._fill_empty()
        super().sync(*args, **kwargs)

    def compute(self) -> VideoResults:
        """Scores of all videos seen since the last reset.

        Raises:
            ValueError: no view was added, all videos were left out, or one video came with two labels.
        """
        self._fill_empty()
        probs, labels, videos, views, left_out = (
            dim_zero_cat(x) for x in (self.probs, self.labels, self.videos, self.views, self.left_out)
        )
        kept = ~torch.isin(videos, left_out)
        if len(left_out) and not kept.any():
            raise ValueError(
                f"no video could be scored: each of the {len(left_out.unique())} that were tried is unreadable."
            )
        return combine_views(probs[kept], labels[kept], videos[kept], views[kept])

    def _fill_empty(self) -> None:
        if isinstance(self.left_out, list) and not self.left_out:
            self.left_out.append(torch.zeros(0, dtype=torch.long, device=self.device))
        if isinstance(self.probs, list) and not self.probs:
            self.probs.append(torch.zeros(0, self.num_classes, device=self.device))
            for state in (self.labels, self.videos, self.views):
                state.append(torch.zeros(0, dtype=torch.long, device=self.device))


def check_views(probs: Tensor, label: Tensor, video: Tensor, view: Tensor, num_classes: int) -> None:
    """Raise a ValueError unless these are scored views, see `VideoScores.update`."""
    _check_scores(probs, num_classes)
    _check_indices("label", label, len(probs), num_classes)
    _check_indices("video", video, len(probs), None)
    _check_indices("view", view, len(probs), None)


def _check_scores(probs: Tensor, num_classes: int) -> None:
    if probs.ndim != 2 or probs.shape[1] != num_classes:
        raise ValueError(
            f"probs should have shape (N, {num_classes}), got {tuple(probs.shape)}. "
            "Pass one row of num_classes softmax values per view."
        )
    # Written so that a nan, for which every comparison is false, is refused too.
    fits = ((probs.sum(dim=1, dtype=torch.float32) - 1).abs() <= _ROW_SUM_TOLERANCE) & (probs >= 0).all(dim=1)
    if not fits.all():
        row = int((~fits).nonzero()[0])
        raise ValueError(
            f"probs should be softmax rows that sum to 1, got row {row} with sum {probs[row].sum().item():.4g}, "
            f"minimum {probs[row].min().item():.4g}. Pass logits.softmax(dim=-1), and look for nan in the network."
        )


def _check_indices(name: str, value: Tensor, length: int, limit: int | None) -> None:
    if value.shape != (length,) or value.is_floating_point():
        raise ValueError(
            f"{name} should be {length} integers of shape ({length},), got {value.dtype} of shape "
            f"{tuple(value.shape)}. Pass one per row of probs."
        )
    wrong = value < 0 if limit is None else (value < 0) | (value >= limit)
    if wrong.any():
        end, hint = ("", "") if limit is None else (f" and below {limit}", " Compare num_classes with the annotations.")
        raise ValueError(f"{name} should be at least 0{end}, got {value[wrong][0].item()}.{hint}")


def _check_one_label_per_video(videos: Tensor, labels: Tensor) -> None:
    pairs = torch.unique(torch.stack([videos, labels], dim=1), dim=0)
    ids, counts = torch.unique(pairs[:, 0], return_counts=True)
    if (counts > 1).any():
        video = ids[counts > 1][0].item()
        found = pairs[pairs[:, 0] == video, 1].tolist()
        raise ValueError(
            f"labels should be one per video, got {found} for video {video}. Reset the metric between two sets."
        )
