"""The costs that the octave paper prints (Chen et al. 2019), shipped with the package."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

_UNITS = {"GFLOPs": 1e9, "MFLOPs": 1e6}


@dataclass(frozen=True)
class Published:
    """One printed cost of a network.

    Attributes:
        source: the table or figure.
        network: name in the paper, with the data set or the size where the table has several.
        model: name of the builder of that network here.
        alpha: share of the low-frequency channels.
        size: of one view, (H, W) or (T, H, W).
        published: the figure.
        unit: "GFLOPs" or "MFLOPs", both of multiply-adds.
        tolerance: what the printed digits leave open, or the reading of a figure.
        params_m: printed parameters in 10^6, if any.
        options: the builder's arguments beside alpha, such as width.
        note: a doubt about the figure itself, if any.
    """

    source: str
    network: str
    model: str
    alpha: float
    size: tuple[int, ...]
    published: float
    unit: str
    tolerance: float
    params_m: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def in_unit(self, macs: float) -> float:
        """Multiply-adds in the unit of the printed figure."""
        return macs / _UNITS[self.unit]

    def difference_percent(self, macs: float) -> float:
        """How much more than the printed figure a count is."""
        return 100 * (self.in_unit(macs) / self.published - 1)


@functools.cache
def published_figures() -> dict[str, Any]:
    """The file as it is: paper, unit, sources, layer (table 1) and networks."""
    return json.loads(resources.files("octvideo.analysis").joinpath("paper.json").read_text(encoding="utf-8"))


def published_networks() -> list[Published]:
    """All printed costs of networks, in the paper's order."""
    return [Published(**{**row, "size": tuple(row["size"])}) for row in published_figures()["networks"]]
