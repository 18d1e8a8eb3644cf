"""Reading checkpoints: nothing in them is executed, only tensors and plain values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octvideo.models import BUILDERS
from octvideo.models.files import read_file
from octvideo.training.classifier import VideoClassifier


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values (`weights_only=True`).

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is no checkpoint of octvideo.
    """
    content = read_file(path, wanted="a .ckpt file that octvideo train wrote")
    if not isinstance(content, dict) or "state_dict" not in content or "hyper_parameters" not in content:
        raise ValueError(f"{path} is a checkpoint of something else: octvideo's hold state_dict and hyper_parameters")
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
        ValueError: the file is no checkpoint of octvideo, or its network cannot be built.
    """
    content = read_checkpoint(path)
    hparams = content["hyper_parameters"]
    name = hparams.get("model")
    if name not in BUILDERS and not own_builders:
        raise ValueError(
            f"{path} holds the model {name!r}, which octvideo does not have: load it with own_builders=True "
            "(--own_builders) if you trust the file"
        )
    try:
        classifier = VideoClassifier(**hparams)
        classifier.load_state_dict(content["state_dict"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit octvideo's {name!r}: {str(error).splitlines()[0]}") from error
    return classifier.eval()
