"""What a split of the data module is given, a list or shards, as annotations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pytorch_lightning.utilities import rank_zero_warn

from octvideo.data.annotations import Annotations, read_annotations, read_class_names
from octvideo.data.annotations.rows import named
from octvideo.data.scan.manifest import Manifest
from octvideo.data.scan.use import leave_out_bad
from octvideo.data.shards import ShardSet, are_shards, open_shards

__all__ = ["Source", "read_source"]

ClassNames = Sequence[str] | str | None


class Source(NamedTuple):
    """A split's videos.

    Args:
        annotations: of those that are there.
        left_out: reasons, by path, of those that a manifest has left out.
        shards: where the videos lie; None where they are files of their own.
    """

    annotations: Annotations
    left_out: dict[str, str]
    shards: ShardSet | None


def read_source(
    split: str, source: str, class_names: ClassNames, manifest: Manifest | None, settings: Mapping[str, Any]
) -> Source:
    """Read a list of videos or the index of shards, with notices of what is left out.

    Args:
        split: "train", "val" or "test".
        source: list, folder, or shards.
        class_names: as in :func:`read_annotations`.
        manifest: of a scan.
        settings: root, missing, val_fraction and timeout_seconds of the data module.

    Raises:
        ValueError: a list without labels, shards beside what is for lists only, or a pattern with stars.
    """
    if are_shards(source):
        return _read_shards(split, source, class_names, manifest, settings)
    missing = settings["missing"] if manifest is None else "keep"
    annotations = read_annotations(source, root=settings["root"], class_names=class_names, missing=missing)
    if not annotations.is_labelled:
        raise ValueError(f"{split}: {source} has no labels, so nothing can be learned from it or scored on it.")
    if annotations.num_missing:
        counts = f"{annotations.num_missing:,} of {len(annotations) + annotations.num_missing:,} listed videos"
        rank_zero_warn(f"{source}: {counts} do not exist and are left out: {named(annotations.missing)}.")
    left_out: dict[str, str] = {}
    if manifest is not None:
        annotations, left_out, notice = leave_out_bad(annotations, manifest)
        if notice:
            rank_zero_warn(f"{source}: {notice}")
    return Source(annotations, left_out, None)


def _read_shards(
    split: str, source: str, class_names: ClassNames, manifest: Manifest | None, settings: Mapping[str, Any]
) -> Source:
    if split == "train" and settings["val_fraction"] > 0:
        raise ValueError(f"val_fraction can't divide the shards {source}. Give val a list or shards of its own.")
    if manifest is not None:
        raise ValueError(
            f"{split}: the manifest {manifest.path} says nothing of videos in the shards {source}. Leave manifest out: "
            "octvideo data pack has looked at every video."
        )
    if any(sign in source for sign in "*?[") and not os.path.exists(source):
        raise ValueError(
            f"{split}: {source} is a pattern, which no shards are named by. Give their folder, or spell them out with "
            "braces, as in shards/train-{000000..000009}.tar."
        )
    shards = open_shards(source, settings["timeout_seconds"])
    names = None if class_names is None else read_class_names(class_names)
    return Source(shards.index.annotations(names), {}, shards)
