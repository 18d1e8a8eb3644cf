"""Start a network from a file of weights, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from octvideo.models.files import read_weights
from octvideo.models.inflate import inflate
from octvideo.models.names import Weights

LISTED = 8
NON_LOCAL = ".non_local."  # see octvideo.models.non_local.NonLocalStage


def load_weights(network: nn.Module, path: str | Path, inflation: str = "average") -> None:
    """Start a network from a file's weights, at whatever alpha either has.

    Reads octvideo's .ckpt, PyTorchVideo's and PySlowFast's .pyth, torchvision's .pth, any plain state dict of
    `torch.save`, and .safetensors. PySlowFast's names, and for a video network those of torchvision's ResNets, become
    PyTorchVideo's; the kernels of an image network become video kernels (`inflate`). PyTorchVideo's X3D has no norm
    in its first shortcut: PySlowFast's is folded into the layers around it. A last layer of other classes keeps its own
    initial values, with a notice, and so do non-local blocks where the file has none.

    Args:
        network: the network, changed in place.
        path: the file.
        inflation: "average" or "centre", how an image network's kernels are spread over time.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file cannot be read, or weights are missing, unexpected or of another shape; the message lists
            them.
    """
    own = network.state_dict()
    given = inflate(read_weights(path), network, inflation)
    head, added = _head_of_other_classes(network, own, given), _added_blocks(own, given)
    fresh = {*head, *added}
    differences = _differences(own, {name: value for name, value in given.items() if name not in fresh}, fresh)
    if differences:
        raise ValueError(f"{path} does not fit the network: {'; '.join(differences)}")
    if added:
        rank_zero_warn(f"{path}: it has no non-local blocks, the network's start anew ({len(added)} weights)")
    if head:
        rank_zero_warn(f"{path}: the last layer has other classes and starts anew ({', '.join(head)})")
    network.load_state_dict({name: value for name, value in given.items() if name not in fresh}, strict=False)


def _head_of_other_classes(network: nn.Module, own: Weights, given: Weights) -> list[str]:
    """Names of the last layer's weight and bias, if only their number of rows, one per class, differs."""
    layers = [n for n, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)]
    head = [name for name in own if name.rpartition(".")[0] in layers[-1:]]
    rows = [(own[name].shape, given[name].shape) for name in head if name in given]
    if len(rows) == len(head) and all(a[0] != b[0] and a[1:] == b[1:] for a, b in rows):
        return head
    return []


def _added_blocks(own: Weights, given: Weights) -> list[str]:
    """Names of the network's non-local blocks where the file has no such block: at first they add nothing."""
    return [] if any(NON_LOCAL in name for name in given) else [name for name in own if NON_LOCAL in name]


def _differences(own: Weights, given: Weights, fresh: Iterable[str]) -> list[str]:
    """What is wrong, in words; old files have no num_batches_tracked, which only a norm without momentum uses."""
    missing = [n for n in own.keys() - given.keys() - set(fresh) if not n.endswith(".num_batches_tracked")]
    misshapen = [n for n in own.keys() & given.keys() if own[n].shape != given[n].shape]
    groups = {
        "missing": missing,
        "unexpected": list(given.keys() - own.keys()),
        "of another shape": [f"{n} {_shape(given[n])}, the network's {_shape(own[n])}" for n in misshapen],
    }
    return [f"{len(names)} {kind}: {_listing(names)}" for kind, names in groups.items() if names]


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "scalar"


def _listing(names: list[str]) -> str:
    names = sorted(names)
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
