"""Other projects' parameter names, and PyTorchVideo's for the same networks, which are octvideo's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

Weights = Mapping[str, Tensor]

# PySlowFast's names within a part of a network.
_PARTS = {
    "stem": {"bn": "norm"},
    "x3d stem": {"bn": "norm", "conv_xy": "conv.conv_t", "conv": "conv.conv_xy"},  # PyTorchVideo's conv_t is spatial
    "res": {
        "branch1": "branch1_conv",
        "branch1_bn": "branch1_norm",
        **{f"branch2.{x}": f"branch2.conv_{x}" for x in "abc"},
        **{f"branch2.{x}_bn": f"branch2.norm_{x}" for x in "abc"},
    },
    "nonlocal": {"bn": "norm"},
    "fuse": {"bn": "norm", "conv_f2s": "conv_fast_to_slow"},
    "head": {
        "projection": "proj",
        "conv_5": "pool.pre_conv",
        "conv_5_bn": "pool.pre_norm",
        "lin_5": "pool.post_conv",
    },
}
_PARTS["x3d res"] = _PARTS["res"] | {
    "branch2.b_bn": "branch2.norm_b.0",
    "branch2.se.fc1": "branch2.norm_b.1.block.0",
    "branch2.se.fc2": "branch2.norm_b.1.block.2",
}

_TORCHVISION_BLOCK = {
    "downsample.0": "branch1_conv",
    "downsample.1": "branch1_norm",
    **{f"conv{n}": f"branch2.conv_{x}" for n, x in enumerate("abc", 1)},
    **{f"bn{n}": f"branch2.norm_{x}" for n, x in enumerate("abc", 1)},
}


def to_network_names(given: Weights, own: Weights) -> dict[str, Tensor]:
    """Rename weights of PySlowFast, or of torchvision's ResNets, where the network has PyTorchVideo's names.

    A prefix of all names ("network." of octvideo, "module." of DistributedDataParallel, "model." of PySlowFast's
    wrapper, "_orig_mod." of torch.compile) is cut off where the network does not have it.

    Args:
        given: a file's state dict.
        own: the network's.

    Returns:
        The weights under the network's names, as far as they are known; others keep theirs.
    """
    weights = _without_prefixes(given, own)
    blocks = _blocks_with_weights(own)
    if len(blocks) < 3:
        return weights
    if any(re.match(r"s\d\.pathway\d_", name) for name in weights):
        return _from_pyslowfast(weights, own, blocks)
    if "layer1.0.conv1.weight" in weights:
        return {_torchvision_name(name, blocks): value for name, value in weights.items()}
    return weights


def _without_prefixes(given: Weights, own: Weights) -> dict[str, Tensor]:
    weights = dict(given)
    for prefix in ("network.", "module.", "model.", "_orig_mod."):
        if all(name.startswith(prefix) for name in weights) and not all(name.startswith(prefix) for name in own):
            shorter = {name.removeprefix(prefix): value for name, value in weights.items()}
            return _without_prefixes(shorter, own)  # they stand in any order
    return weights


def _blocks_with_weights(names: Iterable[str]) -> list[int]:
    """Numbers of PyTorchVideo's blocks: stem, stages, head. A pooling between them has a number and no weights."""
    return sorted({int(match[1]) for name in names if (match := re.match(r"blocks\.(\d+)\.", name))})


def _from_pyslowfast(given: Weights, own: Weights, blocks: list[int]) -> dict[str, Tensor]:
    is_x3d = "s1.pathway0_stem.conv_xy.weight" in given
    is_two_pathway = any(name.startswith("s1.pathway1_") for name in given)
    weights = {_pyslowfast_name(name, blocks, is_two_pathway, is_x3d): value for name, value in given.items()}
    return _fold_shortcut_norms(weights, own) if is_x3d else weights


def _pyslowfast_name(name: str, blocks: list[int], is_two_pathway: bool, is_x3d: bool) -> str:
    if name.startswith("head."):
        return f"blocks.{blocks[-1]}.{_renamed(name.removeprefix('head.'), _PARTS['head'])}"
    match = re.fullmatch(r"s(\d)(?:\.pathway(\d)|)_(stem|res|nonlocal|fuse)(\d*)\.(.+)", name)
    if not match or int(match[1]) > len(blocks):
        return name
    stage, pathway, part, index, rest = match.groups()
    block = f"blocks.{blocks[int(stage) - 1]}"
    rest = _renamed(rest, _PARTS.get(f"x3d {part}" if is_x3d else part, _PARTS[part]))
    if part == "fuse":
        return f"{block}.multipathway_fusion.{rest}"
    if is_two_pathway:
        block += f".multipathway_blocks.{pathway}"
    inside = {"stem": "", "res": f"res_blocks.{index}.", "nonlocal": f"non_local.{index}."}
    return f"{block}.{inside[part]}{rest}"


def _torchvision_name(name: str, blocks: list[int]) -> str:
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", name):
        stage, index, rest = match.groups()
        if int(stage) < len(blocks) - 1:
            return f"blocks.{blocks[int(stage)]}.res_blocks.{index}.{_renamed(rest, _TORCHVISION_BLOCK)}"
    outside = {
        "conv1": f"blocks.{blocks[0]}.conv",
        "bn1": f"blocks.{blocks[0]}.norm",
        "fc": f"blocks.{blocks[-1]}.proj",
    }
    return _renamed(name, outside)


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    """The parameter's name with its module's replaced."""
    module, _, parameter = name.rpartition(".")
    return f"{modules.get(module, module)}.{parameter}"


def _fold_shortcut_norms(given: Weights, own: Weights) -> dict[str, Tensor]:
    """Fold the norm that PySlowFast's X3D has after its first shortcut, and PyTorchVideo's has not.

    Its scale goes into the shortcut's convolution, its shift into the norm that is added to it; the network in
    evaluation mode stays the same.
    """
    weights = dict(given)
    for name in [n for n in given if n.endswith("branch1_norm.weight") and n not in own]:
        block = name.removesuffix("branch1_norm.weight")
        norm = {n.rpartition(".")[2]: given[n] for n in given if n.startswith(f"{block}branch1_norm.")}
        conv, shift = f"{block}branch1_conv.weight", f"{block}branch2.norm_c.bias"
        if not {"bias", "running_mean", "running_var"} <= norm.keys() or not {conv, shift} <= given.keys():
            continue  # an incomplete file: its reader finds out
        scale = norm["weight"] / (norm["running_var"] + 1e-5).sqrt()  # 1e-5: PySlowFast's BN.EPSILON
        weights[conv] = given[conv] * scale.view(-1, 1, 1, 1, 1)
        weights[shift] = given[shift] + norm["bias"] - norm["running_mean"] * scale
        weights = {n: value for n, value in weights.items() if not n.startswith(f"{block}branch1_norm.")}
    return weights
