"""The fast path: a network with the same outputs that takes less time."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from octvideo.convert.trace import trace_symbolically
from octvideo.kernels import LAYOUTS
from octvideo.layers import OctConv1d, OctConv2d, OctConv3d, OctPair, to_channels_last
from octvideo.layers.conv import dense_kind
from octvideo.runtime.check import TOLERANCES, Check, check_of, is_floating
from octvideo.runtime.fusion import fuse, is_hooked
from octvideo.runtime.window import MOST_CHANNELS

Step = Callable[[nn.Module, Any], nn.Module]


class FastNetwork(nn.Module):
    """A network that runs on channels-last memory, in a type of its own.

    Args:
        network: takes and gives what the original does.
        dtype: of the maps within; None is the input's.
        lays_pixels: the network's stems lay out pixels, maps of a few channels, themselves.

    Shape:
        as the network; floating-point outputs have the type of the first floating-point input.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype | None = None, lays_pixels: bool = False) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype
        self.spared_channels = MOST_CHANNELS if lays_pixels else 0

    def train(self, mode: bool = True) -> FastNetwork:
        """Stay in evaluation mode, whatever is asked for: with folded norms there is no other."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.jit.is_tracing():
            raise RuntimeError(
                "torch.jit.trace does not see what a fast network calls: trace the network that it was made of"
            )
        given = next((t.dtype for t in tree_leaves((args, kwargs)) if is_floating(t)), self.dtype)
        args = tuple(self._laid(arg) for arg in args)
        out = self.network(*args, **{name: self._laid(arg) for name, arg in kwargs.items()})
        return _cast(out, given)

    def _laid(self, x: Any) -> Any:
        """An argument in the network's type and memory."""
        return channels_last(_cast(x, self.dtype), self.spared_channels)


def optimize(model: nn.Module, example: Any, *, dtype: torch.dtype | None = None, compile: bool = False) -> nn.Module:
    """Return a copy of a network, octave or dense, that computes the same in less time; for inference.

    Batch norms are folded into the convolutions before them (weights of the dense shape: one rule for every alpha),
    and all maps lie in channels-last memory. On a CPU a kernel in C, compiled on first use, then adds the paths and the
    shortcut up, rectifies and pools as it writes, with weights packed once; where it is not to be had, oneDNN's kernels
    do, in two steps. Or with `compile`, torch.compile generates code for the whole network. For large batches see also
    `keep_freed_memory`. No gradients flow through a fast network.

    Each step is checked on the example (with noise for floating tensors whose elements are all the same); one that
    fails or changes the outputs is left out, with a warning. Norms and sums are left as they are where torch.fx cannot
    trace the network, as its branches may depend on the input; where it changes as it runs; and where hooks of their
    own see them. (Hooks of blocks are traced with the network: what they do to maps stays, and only that.)

    Args:
        model: any network; it is not changed.
        example: an input of the size and type to come; a tuple is passed as positional arguments.
        dtype: torch's floating type of weights and maps within the fast network; None keeps the network's.
        compile: compile for the example's size; takes a minute or more, and a C++ compiler on a CPU.

    Returns:
        The fast network in evaluation mode, its outputs within `TOLERANCES` of the original's.

    Raises:
        TypeError: the model is no module, or dtype is no floating type.
        ValueError: the model is fast already, it cannot be copied, it does not run on the example, or it returns no
            tensors.

    Example:
        >>> import torch
        >>> from octvideo.models import resnet3d_tiny
        >>> clip = torch.zeros(1, 3, 16, 48, 48)
        >>> fast = optimize(resnet3d_tiny(num_classes=8, alpha=0.25), clip)
    """
    _check_arguments(model, dtype)
    network = _copy(model).eval()
    last: tuple[str, Step] = ("compiling", _compiled) if compile else ("fusing sums and activations", fuse_convolutions)
    steps = [
        ("folding batch norms", fold_norms),
        ("lowering convolutions and poolings", lambda net, _: lower(net, dtype)),
        last,
    ]
    with torch.no_grad():
        runner = copy.deepcopy(network)
        check = check_of(runner, example, dtype)
        if check.has_state:
            warnings.warn(
                f"only lowering is tried: {type(model).__name__} changes as it runs, or gives other outputs each time",
                stacklevel=2,
            )
            steps = steps[1:2]
        else:
            network = runner  # with what it makes in its first run
        for name, step in steps:
            network = _checked(name, step, network, check)
    return network


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # old weight norms, for one
        raise ValueError(f"{type(model).__name__} cannot be copied: {error}") from error


def _check_arguments(model: Any, dtype: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module, an instance and not its class; got {model!r}")
    if isinstance(getattr(model, "_orig_mod", model), FastNetwork):  # torch.compile's wrapper has one
        raise ValueError("model is a fast network already: optimize the network that it was made of")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in TOLERANCES):
        known = ", ".join(str(t) for t in TOLERANCES)
        raise TypeError(f"dtype must be one of {known}, or None for the network's own; got {dtype!r}")


def fold_norms(network: nn.Module, example: Any) -> nn.Module:
    """Fold every batch norm that alone reads a convolution's output into that convolution; change and return both."""
    graph = trace_symbolically(network, example)  # a run on the example would show one of several branches only
    uses = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    uses += [str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"]  # of its weight
    for node in graph.nodes:
        users = list(node.users)
        if node.op != "call_module" or len(users) != 1 or users[0].op != "call_module":
            continue
        names = str(node.target), str(users[0].target)
        conv, norm = (network.get_submodule(name) for name in names)
        seen = conv._forward_hooks or is_hooked(norm)
        if is_conv(conv) and _is_norm(norm) and not seen and all(uses.count(name) == 1 for name in names):
            _fold(conv, norm)
            parent, _, child = names[1].rpartition(".")
            setattr(network.get_submodule(parent), child, nn.Identity())
    return network


def lower(network: nn.Module, dtype: torch.dtype | None = None) -> FastNetwork:
    """Give a network channels-last maps and weights; see `octvideo.layers.to_channels_last`."""
    return FastNetwork(to_channels_last(network.to(dtype)), dtype).eval()


def fuse_convolutions(network: nn.Module, example: Any) -> nn.Module:
    """Let convolutions add to sums and rectify as they write, where a CPU's kernels can; see `fuse`."""
    if isinstance(network, FastNetwork):
        return FastNetwork(fuse(network.network, example), network.dtype, lays_pixels=True).eval()
    return FastNetwork(fuse(network, example), lays_pixels=True).eval()


def channels_last(x: Any, spared_channels: int = 0) -> Any:
    """A map, a pair or what holds maps with the channels side by side in memory; all else as it is.

    Maps of up to `spared_channels` channels stay as they are, too.
    """
    if not isinstance(x, Tensor | OctPair):
        return tree_map(lambda leaf: channels_last(leaf, spared_channels), x, is_leaf=_is_map) if _holds_maps(x) else x
    if isinstance(x, OctPair):
        return x.map(channels_last)
    if x.dim() > 1 and x.shape[1] <= spared_channels:
        return x
    layout = LAYOUTS.get(x.dim())
    return x if layout is None else x.contiguous(memory_format=layout)


def _is_map(x: Any) -> bool:
    return isinstance(x, Tensor | OctPair)


def _holds_maps(x: Any) -> bool:
    return any(map(_is_map, tree_leaves(x, is_leaf=_is_map)))


def _cast(maps: Any, dtype: torch.dtype | None) -> Any:
    return maps if dtype is None else tree_map(lambda x: x.to(dtype) if is_floating(x) else x, maps)


def _checked(name: str, step: Step, network: nn.Module, check: Check) -> nn.Module:
    """The network after a step, or before it where the step fails or changes what comes out."""
    try:
        candidate = step(copy.deepcopy(network), check.example)
        worst = check.difference(candidate)
    except Exception as error:  # a step may meet anything in a stranger's network
        warnings.warn(f"{name} is left out: {type(error).__name__}: {str(error).strip().splitlines()[0]}", stacklevel=3)
        return network
    if not worst <= check.tolerance:  # NaN, too
        warnings.warn(f"{name} is left out: outputs differ by {worst:.2g}, more than {check.tolerance:g}", stacklevel=3)
        return network
    return candidate


def _fold(conv: Any, norm: Any) -> None:
    gain = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    bias = bias * gain + (0 if norm.bias is None else norm.bias)
    conv.weight = nn.Parameter(conv.weight * gain.view(-1, *(1,) * (conv.weight.dim() - 1)), requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)


def is_conv(module: nn.Module) -> bool:
    """True for a convolution, dense or octave, that no fast one has taken the place of."""
    return dense_kind(module) is not None or isinstance(module, OctConv1d | OctConv2d | OctConv3d)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def _compiled(network: nn.Module, example: Any) -> nn.Module:
    return torch.compile(network, dynamic=False, options={"freezing": True})  # type: ignore[return-value]
