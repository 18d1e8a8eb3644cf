"""Reading checkpoints: nothing in them is executed, only tensors and plain values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from octvideo.models import BUILDERS
from octvideo.training.classifier import VideoClassifier


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values (`weights_only=True`).

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is no checkpoint of octvideo.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} not found: give a .ckpt file that octvideo train wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise ValueError(
            f"{path} cannot be read as a checkpoint of tensors and plain values ({type(error).__name__}): "
            "it is damaged, another kind of file, or holds code; give a .ckpt file that octvideo train wrote"
        ) from error
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


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Start a network from another checkpoint's weights, at whatever alpha either has.

    A last layer of another shape keeps its own initial values, with a notice.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: weights are missing, unexpected or of another shape; the message lists them.
    """
    prefix = "network."
    given = {k[len(prefix) :]: v for k, v in read_checkpoint(path)["state_dict"].items() if k.startswith(prefix)}
    own = network.state_dict()
    head = [k for k in own if k.startswith(_last_linear(network))]
    skipped = [k for k in head if k in given and given[k].shape != own[k].shape]
    wrong = sorted(_differences(own, given) - set(skipped))
    if wrong:
        raise ValueError(f"{path} does not fit the network: {len(wrong)} weights differ, the first are {wrong[:4]}")
    if skipped:
        rank_zero_warn(f"{path}: the last layer has other classes and starts anew ({', '.join(skipped)})")
    network.load_state_dict({k: v for k, v in given.items() if k not in skipped}, strict=False)


def _last_linear(network: nn.Module) -> str:
    """Name of the last linear layer, which holds a weight's row per class, with a closing dot."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError(f"{type(network).__name__} has no linear layer that could be its head")
    return f"{names[-1]}."


def _differences(own: dict[str, Tensor], given: dict[str, Tensor]) -> set[str]:
    shared = own.keys() & given.keys()
    return (own.keys() ^ given.keys()) | {k for k in shared if own[k].shape != given[k].shape}
