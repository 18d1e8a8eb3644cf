"""Follow a network's graph and decide, layer by layer, what takes and what gives a pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytorchvideo.layers.nonlocal_net import NonLocal
from torch import fx, nn

from octvideo.convert.stages import asks_shape, conv_of, function_of
from octvideo.layers import Segments, even_segments, low_channels, octave_factors, pair_layer
from octvideo.layers.channels import LOW, count
from octvideo.layers.conv import dense_kind, octave_error
from octvideo.layers.dispatch import BINARY, CAT, ELEMENTWISE, GLOBAL_POOL, MEAN, cat_dim
from octvideo.layers.functional import is_depthwise
from octvideo.layers.pool import ADAPTIVE_POOLS


@dataclass(frozen=True)
class ConvPlan:
    """One convolution's part in the plan: the arguments of `octave_from_dense`."""

    alpha_in: float
    alpha_out: float
    in_low: int
    out_segments: Segments
    down_sampling: str = "average"
    exchange: str = "both"

    def __str__(self) -> str:
        text = f"alpha_in {self.alpha_in:g}, alpha_out {self.alpha_out:g}"
        if self.down_sampling != "average":
            text += f", down_sampling {self.down_sampling}"
        return text if self.exchange == "both" else f"{text}, exchange {self.exchange}"


class Value(NamedTuple):
    """What is known of a map: which of its channels are low, and the alpha that its layer was given."""

    segments: Segments
    alpha: float = 0

    @property
    def low(self) -> int:
        """Number of low channels; 0 for a dense map."""
        return count(self.segments, LOW)

    @property
    def known(self) -> bool:
        """False where a dense map of unknown size is among those side by side."""
        return all(high >= 0 for high, _ in self.segments)

    def resolved(self, channels: int) -> Value:
        """The value with its one unknown number of channels, if there is one, from the number of all."""
        rest = channels - sum(high + low for high, low in self.segments if high >= 0)
        if sum(high < 0 for high, _ in self.segments) != 1:
            return self
        return self._replace(segments=tuple((rest, 0) if high < 0 else (high, low) for high, low in self.segments))


DENSE = Value(((-1, 0),))
"""A dense map of an unknown number of channels."""


class ConflictError(Exception):
    """A convolution that must be dense after all.

    Args:
        conv: its name.
        ordinary: True where it must not even read pairs, since it is used on other maps as well.
    """

    def __init__(self, conv: str, ordinary: bool = False) -> None:
        super().__init__(conv)
        self.conv, self.ordinary = conv, ordinary


class Planner:
    """Walk the graph and follow, for every value, which of its channels are high and which low.

    Args:
        model, octave, down_sampling, exchange, channel_multiple: as in `plan_octaves`.
        alpha_of: alpha_out that is wished for a convolution, by its name and module.
        ordinary: convolutions that read and write dense maps only.
    """

    def __init__(
        self,
        model: nn.Module,
        octave: str,
        alpha_of: Callable[[str, nn.Module], float],
        ordinary: set[str],
        down_sampling: str,
        exchange: str,
        channel_multiple: int,
    ) -> None:
        self.model, self.octave, self.alpha_of, self.ordinary = model, octave, alpha_of, ordinary
        self.down_sampling, self.exchange, self.channel_multiple = down_sampling, exchange, channel_multiple
        self.convs: dict[str, ConvPlan | None] = {}  # None: an ordinary convolution
        self.pair_layers: dict[str, None] = {}
        self.merges: dict[str, None] = {}
        self.merging_functions: list[str] = []
        self.merges_output = False
        self.values: dict[fx.Node, Value] = {}
        self.layouts: dict[str, int] = {}

    def run(self, graph: fx.Graph) -> None:
        """Fill the plan.

        Raises:
            ConflictError: when a pair meets one that is split otherwise, or a convolution is used on maps of two kinds.
        """
        self.layouts = _group_layouts(graph, self.model)
        for node in graph.nodes:
            inputs = [self.values.get(n, DENSE) for n in node.all_input_nodes]
            if node.op == "call_module":
                value = self._module(str(node.target), self.model.get_submodule(str(node.target)), inputs)
            elif node.op == "output":
                self.merges_output = any(v.low for v in inputs)
                value = DENSE
            elif any(v.low for v in inputs):
                value = self._function(node, inputs)
            else:
                value = DENSE
            self.values[node] = value

    def _module(self, name: str, module: nn.Module, inputs: list[Value]) -> Value:
        value = inputs[0] if inputs else DENSE
        if dense_kind(module) is not None:
            return self._conv(name, module, value)
        if not any(v.low for v in inputs):
            return value if pair_layer(module) is not None else DENSE
        if isinstance(module, NonLocal):
            return self._nonlocal(name, module, value)
        if pair_layer(module) is not None:
            self.pair_layers[name] = None
            return value
        if not isinstance(module, ADAPTIVE_POOLS):  # each part gives its own means
            self.merges[name] = None
        return DENSE

    def _conv(self, name: str, conv: Any, value: Value) -> Value:
        value = value.resolved(conv.in_channels)
        out = self._out_value(name, conv, value)
        plan = None
        if value.low and not self._takes(name, conv, value, out):
            self.merges[name] = None
            out = Value(((conv.out_channels, 0),))
        elif value.low or out.low:
            exchange = self._exchange(conv, value, out)
            plan = ConvPlan(value.alpha, out.alpha, value.low, out.segments, self.down_sampling, exchange)
        if self.convs.setdefault(name, plan) != plan:
            raise ConflictError(name, ordinary=True)
        return out

    def _exchange(self, conv: Any, value: Value, out: Value) -> str:
        """The wished exchange, but both paths where a layer begins or ends the octave part of the network."""
        inside = 0 < value.low < conv.in_channels and 0 < out.low < conv.out_channels
        return self.exchange if inside else "both"

    def _out_value(self, name: str, conv: Any, value: Value) -> Value:
        """The pair that a convolution writes, or a dense map where it writes none."""
        dense = Value(((conv.out_channels, 0),))
        alpha = 0 if name in self.ordinary else self.alpha_of(name, conv)
        if not alpha or octave_error(conv, octave_factors(self.octave, len(conv.kernel_size))):
            return dense
        if is_depthwise(conv.weight, conv.groups):
            if not value.low or not value.known:
                return dense
            each = conv.out_channels // conv.in_channels
            return Value(tuple((h * each, n * each) for h, n in value.segments), value.alpha)
        low = low_channels(conv.out_channels, alpha, self.channel_multiple)
        if conv.groups > 1:
            whole = value.low and len(value.segments) == conv.groups
            return Value(_layout(conv.out_channels, low, conv.groups), alpha) if low and whole else dense
        layout = _layout(conv.out_channels, low, self.layouts.get(name, 1))
        return Value(layout, alpha) if low else dense

    def _takes(self, name: str, conv: Any, value: Value, out: Value) -> bool:
        """True where a convolution can read this pair and write that output."""
        if name in self.ordinary or octave_error(conv, octave_factors(self.octave, len(conv.kernel_size))):
            return False
        if is_depthwise(conv.weight, conv.groups):
            return out.low > 0
        if conv.groups == 1:
            return True
        grouped = len(value.segments) == conv.groups and len(set(value.segments)) == 1
        return grouped and len(out.segments) == conv.groups

    def _nonlocal(self, name: str, block: Any, value: Value) -> Value:
        """A non-local block keeps a pair, all of its convolutions octave ones; else it gets the merged map."""
        outs = {
            part: self._out_value(f"{name}.{part}", getattr(block, part), value)
            for part in ("conv_theta", "conv_phi", "conv_g", "conv_out")
        }
        if not all(out.low for out in outs.values()) or outs["conv_out"].segments != value.segments:
            self.merges[name] = None
            return DENSE
        for part in outs:
            self._conv(f"{name}.{part}", getattr(block, part), outs["conv_theta"] if part == "conv_out" else value)
        inner = [f"{name}.{part}" for part in ("pool", "norm") if getattr(block, part) is not None]
        self.pair_layers.update(dict.fromkeys([*inner, name]))
        return value

    def _function(self, node: fx.Node, inputs: list[Value]) -> Value:
        """The value of a function of pairs."""
        function, pairs = function_of(node), [v for v in inputs if v.low]
        if function in ELEMENTWISE and len(inputs) == 1:
            return inputs[0]
        if function in BINARY and len(node.args) == 2 and not node.kwargs:
            if len({v.segments for v in pairs}) > 1:
                raise ConflictError(self._conv_before(node))
            return pairs[0]
        if function in CAT and cat_dim(node.args, node.kwargs) == 1:
            return Value(tuple(s for v in inputs for s in v.segments), pairs[0].alpha)
        if function not in GLOBAL_POOL and function not in MEAN and not asks_shape(node):
            self.merging_functions.append(node.name)
        return DENSE

    def _conv_before(self, node: fx.Node) -> str:
        """The nearest octave convolution upstream."""
        queue = list(node.all_input_nodes)
        for upstream in queue:
            name = str(upstream.target)
            conv = self.convs.get(name) if upstream.op == "call_module" else None
            if conv is not None and conv.alpha_out:
                return name
            queue += upstream.all_input_nodes
        raise ValueError(f"no octave convolution feeds {node.target}")  # pragma: no cover - pairs come from one


def _layout(channels: int, low: int, groups: int) -> Segments:
    """Runs of channels for a grouped convolution; one run where the groups do not divide the parts."""
    try:
        return even_segments(channels, low, groups)
    except ValueError:
        return even_segments(channels, low)


def _group_layouts(graph: fx.Graph, model: nn.Module) -> dict[str, int]:
    """Convolution -> groups of the grouped convolution that reads its output.

    Every group of a grouped convolution needs high and low channels of its own, in the dense order of the channels: the
    layer before must write them so.
    """
    layouts = {}
    for node in graph.nodes:
        conv = conv_of(node, model)
        if conv is None or conv.groups == 1 or is_depthwise(conv.weight, conv.groups):
            continue
        source = _producer(node, model)
        if source is not None:
            layouts[source] = conv.groups
    return layouts


def _producer(node: fx.Node, model: nn.Module) -> str | None:
    """The convolution whose output a node reads, with nothing but element-wise and pair layers between."""
    while len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
        if conv_of(node, model) is not None:
            return str(node.target)
        if node.op == "call_module":
            if pair_layer(model.get_submodule(str(node.target))) is None:
                return None
        elif function_of(node) not in ELEMENTWISE:
            return None
    return None
