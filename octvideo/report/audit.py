"""The audit of the paper's costs in one folder: numbers, page and picture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from octvideo.analysis import MACS_TOOL
from octvideo.report.audit_page import audit_page
from octvideo.report.audit_plot import plot_audit
from octvideo.report.rows import collect_metadata

_METADATA = ("octvideo_version", "torch_version", "torchvision_version", "python", "date_utc")
_DIGITS = 6


def write_audit(audit: dict[str, Any], out_dir: str | os.PathLike) -> None:
    """Write audit.json, report.md and report.png.

    Args:
        audit: from `octvideo.analysis.audit_paper`.
        out_dir: folder for the three files, made when missing.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    versions = collect_metadata()
    metadata = {"unit": "multiply-adds", "tool": MACS_TOOL, **{key: versions[key] for key in _METADATA}}
    text = json.dumps(_rounded({"metadata": metadata, **audit}), indent=1, ensure_ascii=False) + "\n"
    (folder / "audit.json").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(audit_page(audit, metadata), encoding="utf-8")
    plot_audit(audit["networks"], folder / "report.png")


def _rounded(value: Any) -> Any:
    """Floats to so many digits as a reader may want; the same counts give the same file."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
