"""Which layers of a network become octave layers: a plan drawn from its traced graph, without an example input."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from octvideo.layers.conv import OctConv2d, OctConv3d, dense_kind, why_not_octave
from octvideo.layers.dispatch import ADD, CAT, ELEMENTWISE
from octvideo.layers.functional import Segments, is_depthwise
from octvideo.layers.modules import PAIRWISE_LAYERS, pair_layer
from octvideo.layers.pair import check_alpha, low_channels, octave_factors


@dataclass(frozen=True)
class ConvPlan:
    """One convolution's part in the plan: the arguments of `octave_from_dense`."""

    alpha_in: float
    alpha_out: float
    in_segments: Segments


@dataclass
class OctavePlan:
    """What `octavize` does to a network.

    Attributes:
        alpha: low-frequency share of the channels between the first and the last octave layer.
        octave: "spatial", "temporal" or "spatiotemporal".
        convs: the convolutions that become octave convolutions, by module name.
        pair_layers: names of the norms, activations, poolings and dropouts that meet pairs.
        merges: names of the modules that cannot take a pair and get the merged map, with its segments.
    """

    alpha: float
    octave: str
    convs: dict[str, ConvPlan] = field(default_factory=dict)
    pair_layers: list[str] = field(default_factory=list)
    merges: dict[str, Segments] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [f"octave plan: alpha {self.alpha:g}, {self.octave}; {len(self.convs)} octave convolutions"]
        rows += [f"  {name}: alpha_in {c.alpha_in:g}, alpha_out {c.alpha_out:g}" for name, c in self.convs.items()]
        rows += [f"  {name}: merges its input" for name in self.merges]
        return "\n".join(rows)


def plan_octaves(
    model: nn.Module,
    alpha: float,
    octave: str = "spatial",
    keep_dense: Callable[[str, nn.Module], bool] | None = None,
) -> OctavePlan:
    """Draw the paper's plan for a network (Chen et al. 2019, section 4.1).

    The first stage with convolutions (the stem) stays dense; in the last one every convolution writes a dense map, so
    that its first convolution and its shortcut take pairs and all others are ordinary. Everything between has
    alpha_in = alpha_out = alpha, where its input is a pair. Stages are the network's children in their order of use.

    Args:
        model: a network that `torch.fx` can trace, with convolutions of 2 or 3 dimensions.
        alpha: low-frequency share of the channels, in (0, 1].
        octave: "spatial", "temporal" or "spatiotemporal".
        keep_dense: called with each convolution's name and module; True keeps its output dense.

    Raises:
        ValueError: for a wrong alpha or octave, and for a network that cannot be traced or has nothing to convert.
    """
    check_alpha(alpha)
    if any(isinstance(m, OctConv2d | OctConv3d) for m in model.modules()):
        raise ValueError(f"{type(model).__name__} is an octave network already: octavize the dense one")
    graph = _trace(model)
    stages = _stages(model, [n.target for n in graph.nodes if _is_conv(n, model)])
    dense = {*stages[:1], *stages[-1:]}
    while True:
        planner = _Planner(model, stages, dense, OctavePlan(alpha, octave), keep_dense)
        conflict = planner.run(graph)
        if not conflict:
            break
        dense |= conflict
    if not planner.plan.convs:
        raise ValueError(f"nothing to convert in {type(model).__name__}: {_why_nothing(planner, stages)}")
    return planner.plan


class _Tracer(fx.Tracer):
    """Keeps sub-classes of the convolutions whole; follows identities, through which some pass lists of maps."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if dense_kind(m) is not None:
            return True
        return super().is_leaf_module(m, module_qualified_name) and not isinstance(m, nn.Identity)


def _trace(model: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(model)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be traced by torch.fx ({error}): octavize its traceable parts one by one"
        ) from error


def _is_conv(node: fx.Node, model: nn.Module) -> bool:
    return node.op == "call_module" and dense_kind(model.get_submodule(str(node.target))) is not None


def _stages(model: nn.Module, conv_names: Iterable[Any]) -> list[str]:
    """Names of the sub-modules that hold convolutions, in order of use: the coarsest division into at least three."""
    names = list(dict.fromkeys(map(str, conv_names)))
    depth, stages = 0, [""]
    while len(stages) < 3 and depth < max((n.count(".") + 1 for n in names), default=0):
        depth += 1
        stages = list(dict.fromkeys(".".join(n.split(".")[:depth]) for n in names))
    return stages if names else []


def _why_nothing(planner: _Planner, stages: list[str]) -> str:
    """What is in the way of an octave network, and what it would take."""
    if len(stages) < 3:
        return (
            f"it has {len(stages)} stages with 2-D or 3-D convolutions, and takes 3 or more, since the first and "
            "the last stay dense"
        )
    for name, conv in planner.model.named_modules():
        if dense_kind(conv) is not None and planner.in_octave_stage(name):
            factors = octave_factors(planner.plan.octave, len(conv.kernel_size))
            reason = why_not_octave(conv, factors)
            if reason:
                return f"convolution {name!r} cannot write an octave map, since {reason}"
    return (
        f"no convolution between its first and its last stage can write an octave map at alpha {planner.plan.alpha:g}: "
        "their channels are too few, grouped, kept dense, or feed functions that take no pairs"
    )


class _Planner:
    """Walk the graph and follow, for every value, which of its channels are high and which low."""

    def __init__(
        self,
        model: nn.Module,
        stages: list[str],
        dense_stages: set[str],
        plan: OctavePlan,
        keep_dense: Callable[[str, nn.Module], bool] | None,
    ) -> None:
        self.model, self.stages, self.dense_stages, self.plan = model, stages, dense_stages, plan
        self.keep_dense = keep_dense or (lambda name, conv: False)
        self.values: dict[fx.Node, Segments | None] = {}  # None: a dense value, its channels unknown

    def run(self, graph: fx.Graph) -> set[str]:
        """Fill the plan; return the stages that must be dense after all, because a function cannot take their pairs."""
        for node in graph.nodes:
            inputs = [self.values[n] for n in node.all_input_nodes]
            if node.op == "call_module":
                self.values[node] = self._module(str(node.target), self.model.get_submodule(str(node.target)), inputs)
            elif not any(map(_is_pair, inputs)) and node.target not in CAT:
                self.values[node] = None
            else:
                value = self._function(node, inputs)
                if value is None and any(map(_is_pair, inputs)):
                    return {self._stage_before(node)}
                self.values[node] = value
        return set()

    def _module(self, name: str, module: nn.Module, inputs: list[Segments | None]) -> Segments | None:
        value = inputs[0] if inputs else None
        if dense_kind(module) is not None:
            return self._conv(name, module, value)
        if not any(map(_is_pair, inputs)):
            return value if pair_layer(module) is not None else None
        takes_segments = type(module) in PAIRWISE_LAYERS or (value is not None and len(value) == 1)
        if pair_layer(module) is not None and takes_segments:
            self.plan.pair_layers.append(name)
            return value
        self.plan.merges[name] = value or ()
        return None

    def _conv(self, name: str, conv: Any, value: Segments | None) -> Segments:
        alpha_out = self._alpha_out(name, conv, value)
        dense: Segments = ((conv.out_channels, 0),)
        if not _is_pair(value):
            if not alpha_out:
                return dense
            value = ((conv.in_channels, 0),)
        elif not self._runs_on_pairs(conv) or (is_depthwise(conv.weight, conv.groups) and not alpha_out):
            self.plan.merges[name] = value or ()
            return dense
        self._add(name, ConvPlan(self.plan.alpha if _is_pair(value) else 0, alpha_out, value or ()))
        low = low_channels(conv.out_channels, alpha_out)
        return ((conv.out_channels - low, low),)

    def _add(self, name: str, conv_plan: ConvPlan) -> None:
        if self.plan.convs.setdefault(name, conv_plan) != conv_plan:
            raise ValueError(
                f"convolution {name!r} is used twice, once on a pair and once on another map: copy it first"
            )

    def _alpha_out(self, name: str, conv: Any, value: Segments | None) -> float:
        """alpha where the convolution writes a pair, else 0."""
        depthwise = is_depthwise(conv.weight, conv.groups)
        if not self.in_octave_stage(name) or self.keep_dense(name, conv) or not self._runs_on_pairs(conv):
            return 0
        if depthwise and not (_is_pair(value) and _keeps_split(conv, value, self.plan.alpha)):
            return 0
        return self.plan.alpha if low_channels(conv.out_channels, self.plan.alpha) else 0

    def in_octave_stage(self, name: str) -> bool:
        """True for a module of a stage that may write pairs."""
        return not any(name == s or name.startswith(s + ".") for s in self.dense_stages)

    def _runs_on_pairs(self, conv: Any) -> bool:
        factors = octave_factors(self.plan.octave, len(conv.kernel_size))
        return why_not_octave(conv, factors) is None and (conv.groups == 1 or is_depthwise(conv.weight, conv.groups))

    def _function(self, node: fx.Node, inputs: list[Segments | None]) -> Segments | None:
        """The value of a function of pairs; None where it cannot take them."""
        if node.op != "call_function":
            return None
        pairs = [v for v in inputs if _is_pair(v)]
        if node.target in ELEMENTWISE and len(inputs) == 1:
            return inputs[0]
        adds = node.target in ADD | {operator.add, operator.iadd} and len(inputs) == 2 and not node.kwargs
        if adds and len(set(pairs)) == 1 and len(pairs[0] or ()) == 1:
            return pairs[0]
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if node.target in CAT and dim == 1 and all(inputs):
            return tuple(segment for value in inputs for segment in value or ())
        return None

    def _stage_before(self, node: fx.Node) -> str:
        """The stage of the nearest octave convolution upstream."""
        queue = list(node.all_input_nodes)
        for upstream in queue:
            name = str(upstream.target)
            if upstream.op == "call_module" and name in self.plan.convs and self.plan.convs[name].alpha_out:
                return next(s for s in self.stages if name == s or name.startswith(s + "."))
            queue += upstream.all_input_nodes
        raise ValueError(f"no octave convolution feeds {node.target}")  # pragma: no cover - pairs come from one


def _is_pair(value: Segments | None) -> bool:
    return value is not None and any(low for _, low in value)


def _keeps_split(conv: Any, value: Segments | None, alpha: float) -> bool:
    if value is None or len(value) != 1:
        return False
    high_out = conv.out_channels - low_channels(conv.out_channels, alpha)
    return high_out * conv.in_channels == value[0][0] * conv.out_channels
