"""The audit's page for readers of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from octvideo.analysis.audit import AGREES_PERCENT
from octvideo.report.audit_text import END, MEMORY, NONLOCAL, NONLOCAL_END, OPENING
from octvideo.report.markdown import pipe_table

_TEXT = ("code", "reason", "reading")


def audit_page(audit: dict[str, Any], metadata: dict[str, Any], folder: str = "results/paper_audit") -> str:
    """The page in Markdown.

    Args:
        audit: from `octvideo.analysis.audit_paper`.
        metadata: tool and versions.
        folder: where the page will be, for the command that made it.
    """
    rows = audit["networks"]
    summary = _summary(rows)
    sections = [OPENING.format(folder=folder, summary=summary, tool=metadata["tool"], limit=AGREES_PERCENT)]
    sections.append(_layer_section(audit["layer"]))
    for source in dict.fromkeys(row["source"] for row in rows):
        sections.append(_source_section(source, [row for row in rows if row["source"] == source]))
    sections += [
        _nonlocal_section(audit["nonlocal_options"]),
        f"{MEMORY}\n{_memory_table(audit['layer'], rows)}",
        END.format(open_rows="\n".join(_open_rows(rows)), **metadata).lstrip(),
    ]
    return "\n".join(sections)


def _open_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"- {row['source'].capitalize()}, {row['network']} at {row['alpha']:g}: {row['reason']}."
        for row in rows
        if row["status"] == "open"
    ]


def _summary(rows: Sequence[dict[str, Any]]) -> str:
    """How many rows agree, are explained, are open."""
    agree, explained, unknown = (
        sum(row["status"] == status for row in rows) for status in ("agrees", "explained", "open")
    )
    return (
        f"Of {len(rows)} printed costs of networks, {agree} agree within {AGREES_PERCENT:g} % with the networks that "
        f"octvideo builds;\n{explained} differ for a reason that a second count or the printed digits show; {unknown} "
        "cannot be explained by what the\npaper says."
    )


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, and so are those in `_TEXT`."""
    return pipe_table(header, lines, right=set(header[1:]) - set(_TEXT))


def _layer_section(layer: Sequence[dict[str, Any]]) -> str:
    header = ["alpha", "FLOPs printed %", "counted %", "memory printed %", "counted %", "reason"]
    lines = []
    for row in layer:
        reasons = [f"{name}: {row[f'{name}_reason']}" for name in ("flops", "memory") if row[f"{name}_reason"]]
        numbers = [
            f"{row[f'{name}_{kind}_percent']:{'g' if kind == 'published' else '.2f'}}"
            for name in ("flops", "memory")
            for kind in ("published", "counted")
        ]
        lines.append([f"{row['alpha']:g}", *numbers, "; ".join(reasons).replace("flops", "FLOPs")])
    text = (
        "A 3x3 `OctConv2d` of 64 channels from pair to pair on 56x56, relative to the dense one; memory is its output."
    )
    return f"## Table 1: one layer\n\n{text}\n\n{table(header, lines)}"


def _source_section(source: str, rows: Sequence[dict[str, Any]]) -> str:
    units = " or ".join(dict.fromkeys(row["unit"] for row in rows))
    printed = any("params_m" in row for row in rows)
    header = [
        *("network", "code", "alpha", f"printed {units}", "counted", "difference %", "pooling"),
        *(["parameters printed M"] if printed else []),
        *("parameters counted M", "activations %", "reason"),
    ]
    parts = [f"## {source.capitalize()}", "", table(header, [_cells(row, printed) for row in rows])]
    if any(row["readings"] for row in rows):
        parts += [f"Other readings of {source}, counted:", "", _readings_table(rows)]
    return "\n".join(parts)


def _cells(row: dict[str, Any], with_params: bool) -> list[str]:
    digits = 1 if row["unit"] == "MFLOPs" else 2
    reason = row["reason"] or row.get("note", "")
    return [
        *(row["network"], f"`{row['model']}`", f"{row['alpha']:g}", f"{row['published']:g}"),
        *(f"{row['counted']:.{digits}f}", f"{row['difference_percent']:+.1f}", f"{row['pool']:.3f}"),
        *([f"{row['params_m']:g}"] if with_params else []),
        *(f"{row['params_counted_m']:.2f}", f"{row['activation_percent']:.0f}", reason),
    ]


def _readings_table(rows: Sequence[dict[str, Any]]) -> str:
    """Every reading once: rows that differ in the data set alone have the same."""
    header = ["code", "alpha", "printed", "reading", "counted", "difference %", "with pooling %", "parameters M"]
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        digits = 1 if row["unit"] == "MFLOPs" else 2
        for r in row["readings"]:
            key = (f"`{row['model']}`", f"{row['alpha']:g}", f"{row['published']:g}", r["text"])
            numbers = [
                *(f"{r['counted']:.{digits}f}", f"{r['difference_percent']:+.1f}"),
                *(f"{r['with_pool_difference_percent']:+.1f}", f"{r['params_counted_m']:.2f}"),
            ]
            lines.setdefault(key, [*key, *numbers])
    return table(header, lines.values())


def _nonlocal_section(options: Sequence[dict[str, Any]]) -> str:
    header = ["option", "blocks GMACs", "total", "difference %", "parameters, % of the dense blocks'"]
    lines = [
        [
            f"({row['option']}) {row['text']}",
            *(f"{row['blocks_gmacs']:.2f}", f"{row['total_gmacs']:.2f}", f"{row['difference_percent']:+.1f}"),
            f"{row['params_percent']:.0f}",
        ]
        for row in options
    ]
    text = NONLOCAL.format(printed=options[0]["printed_gmacs"])
    return f"{text}\n{table(header, lines)}{NONLOCAL_END}"


def _memory_table(layer: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """One line per network, one column per alpha at which some network is printed."""
    alphas = sorted({row["alpha"] for row in rows if row["alpha"]})
    found = {(row["model"], row["alpha"]): row["activation_percent"] for row in rows}
    printed = {row["alpha"]: row["memory_published_percent"] for row in layer}
    lines = [
        ["one layer, 1 - 3/4 alpha", *(f"{100 - 75 * alpha:.1f}" for alpha in alphas)],
        ["one layer, printed", *(f"{printed[a]:g}" if a in printed else "" for a in alphas)],
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        values = [found.get((model, alpha)) for alpha in alphas]
        lines.append([f"`{model}`", *("" if v is None else f"{v:.1f}" for v in values)])
    return table(["network", *(f"{alpha:g}" for alpha in alphas)], lines)
