"""What a scan found, for people: a page, a picture and a list of the files that are not all right."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from octvideo.data.annotations import Annotations
from octvideo.data.scan.manifest import BAD, STATUSES, Manifest, ManifestEntry

__all__ = ["count_statuses", "write_scan_report"]

MEANINGS = {
    "ok": "decodes from its first frame to its last",
    "damaged": "of use up to the first frame that does not decode; FFmpeg patches over other damage",
    "corrupt": "no frame of it decodes",
    "missing": "there is no such file",
    "timed out": "was still at it at the time limit, and stopped",
    "crashed": "ended the process that decoded it",
}
# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = ("#009E73", "#F0E442", "#D55E00", "#999999", "#0072B2", "#000000")
MOST_CLASSES = 60  # bars in the picture
MOST_NAMED = 20  # files on the page
Row = tuple[str, ManifestEntry]
"""A class and one of its videos."""


def write_scan_report(folder: str | os.PathLike[str], annotations: Annotations, manifest: Manifest) -> Counter[str]:
    """Write report.md, report.png and bad.csv.

    Args:
        folder: where they go, made when missing.
        annotations: the list, with every listed video, those that are missing included.
        manifest: what the scan of all of them found.

    Returns:
        Number of videos by status.

    Raises:
        ValueError: a video of the list was not scanned.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(annotations, record.path, record.label, manifest) for record in annotations.records]
    counts = count_statuses(rows)
    by_class = {name: Counter[str]() for name in annotations.class_names}
    for name, entry in rows:
        by_class.setdefault(name, Counter())[entry.status] += 1
    _write_bad(folder / "bad.csv", rows)
    _plot(folder / "report.png", by_class)
    (folder / "report.md").write_text(_page(rows, counts, by_class), encoding="utf-8", errors="backslashreplace")
    return counts


def count_statuses(rows: Sequence[Row]) -> Counter[str]:
    """Number of videos by status."""
    return Counter(entry.status for _, entry in rows)


def _row(annotations: Annotations, path: str, label: int | None, manifest: Manifest) -> Row:
    entry = manifest.entry(path)
    if entry is None:
        raise ValueError(f"{path}: not in {manifest.path}. Scan the whole list first.")
    return ("" if label is None else annotations.class_names[label]), entry


def _write_bad(path: Path, rows: Sequence[Row]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "class", "status", "num_frames", "reason"])
        for name, entry in rows:
            if entry.status != "ok":
                num_frames = entry.info.num_frames if entry.info else 0
                writer.writerow([entry.path, name, entry.status, num_frames, entry.reason])


def _plot(path: Path, by_class: dict[str, Counter[str]]) -> None:
    """A bar for each class, those with the most bad files where there are too many classes."""
    names = sorted(by_class, key=lambda name: -sum(by_class[name][status] for status in STATUSES[1:]))[:MOST_CLASSES]
    shown = [name for name in by_class if name in names]
    with matplotlib.rc_context({"font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(9, 1.4 + 0.22 * len(shown)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        start = [0] * len(shown)
        for status, colour in zip(STATUSES, COLOURS, strict=True):
            widths = [by_class[name][status] for name in shown]
            total = sum(counts[status] for counts in by_class.values())
            axes.barh(range(len(shown)), widths, left=start, color=colour, label=f"{status} ({total:,})")
            start = [one + width for one, width in zip(start, widths, strict=True)]
        # Names of folders need not be UTF-8.
        axes.set_yticks(range(len(shown)), [name.encode(errors="backslashreplace").decode() for name in shown])
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("videos")
        some = f" ({len(shown)} of {len(by_class)} classes, those with the most problems)"
        axes.set_title("Videos by class" + (some if len(shown) < len(by_class) else ""))
        figure.legend(loc="outside lower center", ncols=len(STATUSES), frameon=False, fontsize=8)
        figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def _page(rows: Sequence[Row], counts: Counter[str], by_class: dict[str, Counter[str]]) -> str:
    bad = sum(counts[status] for status in BAD)
    parts = [
        "# Scan\n",
        f"{len(rows):,} videos, {len(rows) - bad:,} of use. Every file that is not ok is in [bad.csv](bad.csv).\n",
        _table(["status", "videos", "which is"], [[s, f"{counts[s]:,}", MEANINGS[s]] for s in STATUSES]),
        "![videos by class and status](report.png)\n",
        "## Files\n",
        *_file_notes(rows),
        "## Classes\n",
        _table(
            ["class", "listed", *STATUSES],
            [
                [_cell(name), f"{row.total():,}", *(str(row[s] or "") for s in STATUSES)]
                for name, row in by_class.items()
            ],
        ),
    ]
    problems = [(name, entry) for name, entry in rows if entry.status != "ok"]
    if problems:
        cells = [[_cell(text) for text in (entry.path, entry.status, entry.reason)] for _, entry in problems]
        title = f"## The first {MOST_NAMED} problems\n" if len(problems) > MOST_NAMED else "## Problems\n"
        parts += [title, _table(["path", "status", "reason"], cells[:MOST_NAMED])]
    return "\n".join(parts)


def _file_notes(rows: Sequence[Row]) -> list[str]:
    good = [entry for _, entry in rows if entry.info is not None]
    if not good:
        return ["No file is of use.\n"]
    kinds = Counter(
        (e.info.codec, e.container, " ".join(e.info.seekers) or "none: read in sequence") for e in good if e.info
    )
    lengths = sorted(e.info.num_frames for e in good if e.info)
    short = sum(bool(e.info) and e.info.num_frames < e.header_frames for e in good if e.info)
    return [
        _table(
            ["codec", "container", "exact seeks", "videos"],
            [[*kind, f"{count:,}"] for kind, count in kinds.most_common()],
        ),
        f"Frames of a video: {lengths[0]:,} to {lengths[-1]:,}, half have {lengths[len(lengths) // 2]:,} or more. "
        f"{short:,} of {len(good):,} files hold fewer frames than their header promises.\n",
    ]


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
