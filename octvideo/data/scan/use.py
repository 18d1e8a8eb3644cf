"""A scan's manifest between a list of videos and its data set."""

from __future__ import annotations

import os
from array import array
from collections import Counter

import numpy as np

from octvideo.data.annotations import Annotations
from octvideo.data.scan.manifest import STATUSES, Manifest

__all__ = ["leave_out_bad"]


def leave_out_bad(annotations: Annotations, manifest: Manifest) -> tuple[Annotations, dict[str, str], str]:
    """The list without the videos that are missing, and those that a scan found to be of no use.

    A file whose size or time differs from the scan's is kept, as is one that was not scanned: nothing is known of it,
    and the data set looks at it itself.

    Args:
        annotations: the list, with missing videos.
        manifest: the scan's.

    Returns:
        What is kept, the reasons of what is not by path, and one line that counts both kinds and what is not known;
        empty where all is well.

    Raises:
        ValueError: nothing is kept.
    """
    kept, reasons = array("q"), {}
    counts: Counter[str] = Counter()
    for place, record in enumerate(annotations.records):
        entry = manifest.entry(record.path)
        if not os.path.isfile(record.path):
            counts["missing"] += 1
            reasons[record.path] = "missing: there is no such file"
            continue
        if entry is None or not entry.fits():
            counts["not in it" if entry is None else "changed since the scan"] += 1
        elif entry.is_bad:
            counts[entry.status] += 1
            reasons[record.path] = f"{entry.status}: {entry.reason}"
            continue
        kept.append(place)
    if not kept:
        raise ValueError(
            f"{manifest.path}: none of the {len(annotations):,} listed videos is of use: {_words(counts)}."
        )
    notice = _notice(annotations, manifest, reasons, counts)
    return (annotations.take(np.array(kept)) if reasons else annotations), reasons, notice


def _notice(annotations: Annotations, manifest: Manifest, reasons: dict[str, str], counts: Counter[str]) -> str:
    bad = Counter({status: counts[status] for status in STATUSES if counts[status]})
    unknown = counts - bad
    parts = [f"{len(reasons):,} of {len(annotations):,} videos are left out ({_words(bad)})"] if bad else []
    parts += [f"{unknown.total():,} are looked at before use ({_words(unknown)})"] if unknown else []
    return f"by {manifest.path}, {', and '.join(parts)}." if parts else ""


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
