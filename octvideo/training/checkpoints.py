"""Reading checkpoints: nothing in them is executed, only tensors and plain values are read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octvideo.models import BUILDERS
from octvideo.models.files import read_file
from octvideo.training.classifier import VideoClassifier
from octvideo.training.hparams import check_hparams

RESUMED = {
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
PATHS = ("kth_best_model_path", "last_model_path", "best_model_path")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values (`weights_only=True`).

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is no checkpoint of octvideo.
    """
    content = read_file(path, wanted="a .ckpt file that octvideo train wrote")
    if not isinstance(content, dict) or "state_dict" not in content or "hyper_parameters" not in content:
        raise ValueError(f"{path} is a checkpoint of something else: octvideo's hold state_dict and hyper_parameters")
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(v, Tensor) for n, v in state.items()):
        raise ValueError(f"{path} is no checkpoint of octvideo: its state_dict should hold tensors by name")
    return content


def load_classifier(path: str | Path, *, own_builders: bool = False) -> VideoClassifier:
    """Rebuild network, class names and preprocessing from a checkpoint alone.

    Args:
        path: a .ckpt file of `octvideo train`.
        own_builders: also import a builder that the checkpoint names by "package.module:function"; only for files
            that you trust, since an import runs code.

    Returns:
        The classifier in evaluation mode; `classifier.hparams` holds class_names and preprocessing.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is no checkpoint of octvideo, its network cannot be built, or its weights are not finite.
    """
    content = read_checkpoint(path)
    with _naming(path):
        hparams = check_hparams(content["hyper_parameters"])
    name, state = hparams["model"], content["state_dict"]
    if name not in BUILDERS and not own_builders:
        raise ValueError(
            f"{path} holds the model {name[:100]!r}, which octvideo does not have: load it with own_builders=True "
            "(--own_builders) if you trust the file"
        )
    try:
        if name in BUILDERS:  # a network as large as the file says, but without memory for it
            with torch.device("meta"):
                _check_shapes(VideoClassifier(**hparams).state_dict(), state)
        classifier = VideoClassifier(**hparams)
        classifier.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = textwrap.shorten(str(error).splitlines()[0], 300, placeholder=" ...")
        raise ValueError(f"{path} does not fit octvideo's {name[:100]!r}: {reason}") from error
    _check_finite(path, state)
    return classifier.eval()


def _check_shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise a ValueError for the first weight that is missing, not expected, or of another shape."""
    for name, value in own.items():
        if name not in given:
            raise ValueError(f"its state_dict lacks {name}")
        if given[name].shape != value.shape:
            raise ValueError(f"its {name} is {tuple(given[name].shape)}, and the network's {tuple(value.shape)}")
    for name in given:
        if name not in own:
            raise ValueError(f"its state_dict has {name[:100]!r}, which the network has not")


def _check_finite(path: str | Path, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if not value.isfinite().all():
            raise ValueError(
                f"{path}: its {name} is not finite, so its training has diverged. Give an earlier checkpoint, or train "
                "anew with a lower lr or gradients that are clipped (trainer.gradient_clip_val)"
            )


def read_resumed(path: Path) -> dict[str, Any]:
    """Read a checkpoint that training goes on from.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is none, or names files outside of its own folder, which the trainer would replace or delete.
    """
    content = read_checkpoint(path)
    for name, kind in RESUMED.items():
        if not isinstance(content.get(name), kind) or content[name] in ([], {}):
            raise ValueError(f"{path} cannot be resumed: its {name} is no {kind.__name__}, or an empty one")
    progress = content["loops"].get("fit_loop")
    if not isinstance(progress, dict) or "epoch_progress" not in progress:
        raise ValueError(f"{path} cannot be resumed: its loops say nothing of the epochs")
    if not 0 <= content["epoch"] < 2**31:
        raise ValueError(f"{path} cannot be resumed: its epoch should be 0 or more")
    for state in content["callbacks"].values():
        if isinstance(state, dict):
            _check_paths(path, state)
    return content


def _check_paths(path: Path, state: Mapping[str, Any]) -> None:
    folder = state.get("dirpath")
    listed = state.get("best_k_models") or {}
    for name in [*(state.get(key) or "" for key in PATHS), *(listed if isinstance(listed, dict) else [None])]:
        is_inside = isinstance(name, str) and isinstance(folder, str) and Path(name).parent == Path(folder)
        if name != "" and not (is_inside and name.endswith(".ckpt")):
            raise ValueError(f"{path} cannot be resumed: it names files outside of its run's checkpoints")


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Name the file in front of an error's message."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
