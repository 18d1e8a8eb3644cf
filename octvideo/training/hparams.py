"""What a checkpoint says of its network and its clips, checked before anything is built from it."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from octvideo.data import VideoDataset
from octvideo.data.datamodule import PREPROCESSING
from octvideo.training.classifier import VideoClassifier

NEEDED = ("num_frames", "frame_stride", "test_crop_size")
MAX_VIEW_VALUES = 2**28  # of one clip, a gigabyte in float32
MAX_PIXELS = 2**14
MAX_VIEWS = 10_000
MAX_NAME = 1000


def check_hparams(hparams: Any) -> dict[str, Any]:
    """Return a checkpoint's hyper-parameters if they are those of a `VideoClassifier`, and its preprocessing is whole.

    Values are never shown: they can be of any size.

    Raises:
        ValueError: a name that the classifier does not have, a value of another type or beyond all measure.
    """
    known = typing.get_type_hints(VideoClassifier.__init__)
    _check_types("hyper_parameters", hparams, known)
    if "model" not in hparams:
        raise ValueError("hyper_parameters lack model")
    _check_class_names(hparams.get("class_names", ()))
    _check_preprocessing(hparams.get("preprocessing"))
    return dict(hparams)


def _check_preprocessing(values: Any) -> None:
    hints = typing.get_type_hints(VideoDataset.__init__)
    _check_types("preprocessing", values, {name: hints[name] for name in PREPROCESSING})
    missing = [name for name in NEEDED if name not in values]
    if missing:
        raise ValueError(f"preprocessing lacks {', '.join(missing)}")
    crop = values["test_crop_size"]
    height, width = (crop, crop) if isinstance(crop, int) else crop if crop and len(crop) == 2 else (0, 0)
    sides = [height, width, *(values.get(n) or 1 for n in ("test_short_side", "cache_short_side"))]
    if not all(1 <= side <= MAX_PIXELS for side in (*sides, values["num_frames"])):
        raise ValueError(f"preprocessing has sizes that are not in 1 to {MAX_PIXELS}")
    if 3 * values["num_frames"] * height * width > MAX_VIEW_VALUES:
        raise ValueError(f"preprocessing makes clips of more than {MAX_VIEW_VALUES:.1g} values")
    if not 1 <= values.get("num_clips", 1) * values.get("num_crops", 1) <= MAX_VIEWS:
        raise ValueError(f"preprocessing has numbers of views that are not in 1 to {MAX_VIEWS}")
    if any(len(values.get(name, (1, 1, 1))) != 3 for name in ("mean", "std")):
        raise ValueError("preprocessing has a mean or std that is not of 3 channels")


def _check_class_names(names: Sequence[str]) -> None:
    if not names or len(set(names)) != len(names):
        raise ValueError("class_names are none, or some are equal")
    if any(len(name) > MAX_NAME or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name) for name in names):
        raise ValueError(f"class_names hold control characters, or one is longer than {MAX_NAME}")


def _check_types(what: str, values: Any, hints: Mapping[str, Any]) -> None:
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{what} should be a dict with names, not {type(values).__name__}")
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"{what} hold {name[:100]!r}, which octvideo does not have")
        if not _fits(value, hints[name]):
            raise ValueError(f"{what}: {name} is of a wrong type ({type(value).__name__}), or not finite")


def _fits(value: Any, hint: Any) -> bool:
    """True for a plain value of the annotated type."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is Sequence:
        return isinstance(value, list | tuple) and all(_fits(one, inner[0]) for one in value)
    if hint in (int, float) and type(value) is int:
        return abs(value) < 2**63
    if hint is float:
        return type(value) is float and math.isfinite(value)
    return isinstance(value, dict) if kind is dict else type(value) is hint
