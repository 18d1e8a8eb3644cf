"""Which layers of a network become octave layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from octvideo.convert.planner import ConflictError, ConvPlan, Planner
from octvideo.convert.stages import Stages, find_stages, why_nothing
from octvideo.convert.trace import trace
from octvideo.layers import OctConv1d, OctConv2d, OctConv3d
from octvideo.layers.resize import check_alpha, octave_factors

Alpha = float | Mapping[str, float]
"""One alpha for the paper's plan, or alphas by module name (or by the beginning of it)."""


@dataclass
class OctavePlan:
    """What `octavize` does to a network.

    Attributes:
        octave: "spatial", "temporal" or "spatiotemporal".
        convs: the convolutions that become octave convolutions, by module name.
        pair_layers: names of the norms, activations, poolings and dropouts that meet pairs.
        merges: names of the modules that cannot take a pair and get the merged map.
        merging_functions: functions that cannot take one, by the names of their nodes; they merge by themselves.
        merges_output: True where the network's outputs would be pairs and are merged.
        kept_dense: convolutions that are dense although an alpha was wished for them: their pair would meet one that is
            split otherwise, or they are used on maps of two kinds.
    """

    octave: str
    convs: dict[str, ConvPlan] = field(default_factory=dict)
    pair_layers: list[str] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    merging_functions: list[str] = field(default_factory=list)
    merges_output: bool = False
    kept_dense: list[str] = field(default_factory=list)

    @property
    def alphas(self) -> dict[str, float]:
        """alpha_out by convolution: edit it and give it to `plan_octaves` or `octavize` in place of one alpha."""
        return {name: conv.alpha_out for name, conv in self.convs.items()}

    def __str__(self) -> str:
        rows = [f"octave plan, {self.octave}; {len(self.convs)} octave convolutions"]
        rows += [f"  {name}: {conv}" for name, conv in self.convs.items()]
        rows += [f"  {name}: merges its input" for name in [*self.merges, *self.merging_functions]]
        rows += ["  the output is merged"] * self.merges_output
        rows += [f"  {name}: kept dense, since its pair would meet another kind of map" for name in self.kept_dense]
        return "\n".join(rows)


def plan_octaves(
    model: nn.Module,
    alpha: Alpha,
    octave: str = "spatial",
    *,
    example: Any = None,
    keep_dense: Callable[[str, nn.Module], bool] | None = None,
    down_sampling: str = "average",
    exchange: str = "both",
    channel_multiple: int = 1,
) -> OctavePlan:
    """Draw the paper's plan for a network (Chen et al. 2019, section 4.1).

    The first stage with convolutions (the stem) stays dense; in the last one every convolution writes a dense map, so
    that its first convolution and its shortcut take pairs and all others are ordinary. Everything between has
    alpha_in = alpha_out = alpha, where its input is a pair. Stages are the network's children in their order of use;
    convolutions on a globally pooled map (squeeze-and-excitation, some heads) are dense and make no stage.

    Args:
        model: a network with convolutions of 1, 2 or 3 dimensions.
        alpha: low-frequency share of the channels, in [0, 1]; or alphas by module name, {"layer2": 0.25, "layer3.0":
            0.5}: the longest name that fits counts, modules without one are dense, and there is no rule of stages.
        octave: "spatial", "temporal" or "spatiotemporal".
        example: an input to trace the network with, a tuple for several arguments; None traces it by `torch.fx`.
        keep_dense: called with each convolution's name and module; True keeps its output dense.
        down_sampling, exchange: as in `OctConv3d`; layers that need both paths keep them.
        channel_multiple: 1 gives a layer of C channels floor(alpha C) low ones, the paper's number; above it the
            nearest multiple, for hardware that is fast on multiples of 8 or 16. A layer left without any is dense.

    Raises:
        ValueError: for a wrong alpha, octave or multiple, a name that the network does not have, and for a network that
            cannot be traced or has nothing to convert.
    """
    if any(isinstance(m, OctConv1d | OctConv2d | OctConv3d) for m in model.modules()):
        raise ValueError(f"{type(model).__name__} is an octave network already: deoctavize it first")
    check_alphas(alpha, model)
    if channel_multiple < 1:
        raise ValueError(f"channel_multiple must be 1 or more; got {channel_multiple}")
    graph = trace(model, example)
    stages = find_stages(graph, model)
    dense = {*stages.names[:1], *stages.names[-1:]} if not isinstance(alpha, Mapping) else set()
    kept: set[str] = set()
    ordinary: set[str] = set()
    while True:
        alpha_of = _alpha_of(alpha, dense, kept, stages, keep_dense)
        planner = Planner(model, octave, alpha_of, ordinary, down_sampling, exchange, channel_multiple)
        try:
            planner.run(graph)
            break
        except ConflictError as conflict:
            (ordinary if conflict.ordinary else kept).add(conflict.conv)
    convs = {name: conv for name, conv in planner.convs.items() if conv is not None}
    if not convs:
        reason = why_nothing(model, stages, dense, lambda conv: octave_factors(octave, len(conv.kernel_size)))
        raise ValueError(f"nothing to convert in {type(model).__name__}: {reason}")
    return OctavePlan(
        octave,
        convs,
        list(planner.pair_layers),
        list(planner.merges),
        planner.merging_functions,
        planner.merges_output,
        sorted(kept | ordinary),
    )


def check_alphas(alpha: Alpha | None, model: nn.Module) -> None:
    """Raise a ValueError for an alpha outside [0, 1] or for the name of a module that is not there."""
    if not isinstance(alpha, Mapping):
        return check_alpha(alpha)  # type: ignore[arg-type]
    names = {name for name, _ in model.named_modules()}
    for name, value in alpha.items():
        check_alpha(value, f"alpha of {name!r}")
        if name not in names:
            raise ValueError(f"alpha names the module {name!r}, which {type(model).__name__} does not have")
    return None


def _alpha_of(
    alpha: Alpha,
    dense: set[str],
    kept: set[str],
    stages: Stages,
    keep_dense: Callable[[str, nn.Module], bool] | None,
) -> Callable[[str, nn.Module], float]:
    """The wish for each convolution: its alpha_out, by name and module."""

    def alpha_of(name: str, conv: nn.Module) -> float:
        if (
            name in stages.pooled | kept
            or stages.of(name) in dense
            or (keep_dense is not None and keep_dense(name, conv))
        ):
            return 0
        return _longest(alpha, name) if isinstance(alpha, Mapping) else alpha

    return alpha_of


def _longest(alphas: Mapping[str, float], name: str) -> float:
    fits = [key for key in alphas if key in ("", name) or name.startswith(key + ".")]
    return alphas[max(fits, key=len)] if fits else 0
