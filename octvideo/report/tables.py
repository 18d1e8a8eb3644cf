"""Result rows as Markdown and CSV; every column of GMACs says what was counted."""

import csv
import io
from collections.abc import Iterable, Sequence

from octvideo.report.folds import Summary, summarise
from octvideo.report.markdown import pipe_table
from octvideo.report.rows import ResultRow


def view_protocol(row: ResultRow) -> str:
    """What one view is, such as "224x224 crop, 8 frames x stride 8"."""
    return f"{row.crop} crop, {row.sampling}"


def views_protocol(row: ResultRow) -> str:
    """How many views a video has, such as "30 views (10 clips x 3 crops)"."""
    num_views = row.num_clips * row.num_crops
    if num_views == 1:
        return "1 view"
    return f"{num_views} views ({_plural(row.num_clips, 'clip')} x {_plural(row.num_crops, 'crop')})"


def view_column(row: ResultRow) -> str:
    """Header of the GMACs of one view."""
    return f"GMACs per view [{row.macs_unit}; {view_protocol(row)}; 1 view; {row.macs_tool}]"


def video_column(row: ResultRow) -> str:
    """Header of the GMACs of all of a video's views."""
    return f"GMACs per video [{row.macs_unit}; {view_protocol(row)}; {views_protocol(row)}; {row.macs_tool}]"


def markdown_table(rows: Iterable[ResultRow]) -> str:
    """One Markdown table per data set and protocol, one line per experiment.

    Rows that were taken under another crop, number of frames or views, or by another counter stand in another table,
    for their numbers do not compare.

    Args:
        rows: results; folds and seeds are averaged by `octvideo.report.summarise`.
    """
    summaries = summarise(rows)
    tables: dict[tuple, list[Summary]] = {}
    for summary in summaries:
        row = summary.row
        key = (row.dataset, row.split, view_column(row), video_column(row))
        tables.setdefault(key, []).append(summary)
    return "\n".join(_markdown_section(group) for group in tables.values())


def _markdown_section(group: Sequence[Summary]) -> str:
    first = group[0].row
    title = f"### {first.dataset}, {first.split}: {view_protocol(first)}, {views_protocol(first)}"
    header = [
        *("name", "model", "octave", "alpha", "top-1 %", "top-5 %", "mean class %"),
        *(view_column(first), "of dense %", video_column(first), "params M", "latency ms", "runs", "videos"),
    ]
    right = {"alpha", *header[4:]}
    ordered = sorted(group, key=lambda s: (s.row.model, s.row.octave, s.row.name, s.row.alpha))
    table = pipe_table(header, (_markdown_cells(summary, group) for summary in ordered), right)
    return f"{title}\n\n{table}"


def _markdown_cells(summary: Summary, group: Sequence[Summary]) -> list[str]:
    row = summary.row
    relative = relative_percent(summary, group)
    threads = "" if row.latency_threads is None else f" ({_plural(row.latency_threads, 'thread')})"
    cells = [
        *(row.name, row.model, row.octave, f"{row.alpha:g}", _with_interval(summary)),
        *(f"{summary.top5_percent:.2f}", f"{summary.mean_class_percent:.2f}", _digits(row.gmacs_per_view)),
        *("" if relative is None else f"{relative:.1f}", _digits(row.gmacs_per_video), f"{row.params_m:.2f}"),
        "" if summary.latency_ms is None else f"{summary.latency_ms:.1f}{threads}",
        *(_runs(summary), _videos(summary)),
    ]
    return [cell.replace("|", "\\|") for cell in cells]


def _with_interval(summary: Summary) -> str:
    if summary.top1_half_width_percent is None:
        return f"{summary.top1_percent:.2f}"
    return f"{summary.top1_percent:.2f} ± {summary.top1_half_width_percent:.2f}"


def _runs(summary: Summary) -> str:
    num_folds = len(summary.top1_by_fold_percent)
    seeds = _plural(len(summary.seeds), "seed")
    return f"{num_folds} folds, {seeds}" if num_folds > 1 else seeds


def _videos(summary: Summary) -> str:
    missing = f" (+{summary.unreadable_videos} unreadable)" if summary.unreadable_videos else ""
    return f"{summary.num_videos}{missing}"


def _digits(gmacs: float) -> str:
    return f"{gmacs:.2f}" if gmacs >= 1 else f"{gmacs:.3g}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def relative_percent(summary: Summary, group: Iterable[Summary]) -> float | None:
    """GMACs per view in per cent of the same network's at alpha 0 in the group; None when that is not there."""
    row = summary.row
    for other in group:
        same = (other.row.model, view_column(other.row)) == (row.model, view_column(row))
        if same and other.row.alpha == 0 and other.row.gmacs_per_view > 0:
            return 100.0 * row.gmacs_per_view / other.row.gmacs_per_view
    return None


def csv_table(rows: Iterable[ResultRow]) -> str:
    """One CSV table over all experiments, one line each, numbers unrounded.

    Each protocol has its own two columns of GMACs, named in full; a line fills those of its protocol.

    Args:
        rows: results; folds and seeds are averaged by `octvideo.report.summarise`.
    """
    summaries = summarise(rows)
    columns = list(dict.fromkeys(f(s.row) for s in summaries for f in (view_column, video_column)))
    lines = [_csv_cells(summary, summaries) for summary in summaries]
    header = [*(lines[0] if lines else ()), *columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    for line, summary in zip(lines, summaries, strict=True):
        row = summary.row
        writer.writerow(line | {view_column(row): row.gmacs_per_view, video_column(row): row.gmacs_per_video})
    return text.getvalue()


def _csv_cells(summary: Summary, group: Sequence[Summary]) -> dict[str, object]:
    row = summary.row
    same = ("name", "model", "octave", "alpha", "dataset", "split")
    protocol = ("crop", "num_frames", "frame_stride", "num_clips", "num_crops", "macs_unit", "macs_tool", "params_m")
    return {
        **{name: getattr(row, name) for name in same},
        "top1_percent": summary.top1_percent,
        "top1_half_width_95_percent": summary.top1_half_width_percent,
        "interval_over": summary.interval_over,
        "top5_percent": summary.top5_percent,
        "mean_class_percent": summary.mean_class_percent,
        "top1_by_fold_percent": " ".join(f"{k or 'all'}={v:.4f}" for k, v in summary.top1_by_fold_percent.items()),
        "seeds": " ".join(map(str, summary.seeds)),
        "num_runs": summary.num_runs,
        "num_videos": summary.num_videos,
        "unreadable_videos": summary.unreadable_videos,
        **{name: getattr(row, name) for name in protocol},
        "gmacs_of_dense_percent": relative_percent(summary, group),
        "latency_ms": summary.latency_ms,
        "latency_threads": row.latency_threads,
    }
