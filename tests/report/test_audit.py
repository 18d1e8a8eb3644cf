"""The audit's folder: the page comes from the numbers beside it."""

import json
import re
from pathlib import Path

import pytest

from octvideo.report import write_audit

RESULTS = Path(__file__).resolve().parents[2] / "results" / "paper_audit"


@pytest.fixture
def audit():
    return json.loads((RESULTS / "audit.json").read_text(encoding="utf-8"))


def without_versions(page):
    return page[: page.index("Versions: ")]


def test_the_committed_page_is_that_of_the_committed_numbers(audit, tmp_path):
    numbers = {key: value for key, value in audit.items() if key != "metadata"}
    write_audit(numbers, tmp_path / "new")
    page, committed = ((folder / "report.md").read_text(encoding="utf-8") for folder in (tmp_path / "new", RESULTS))
    assert without_versions(page) == without_versions(committed)
    written = json.loads((tmp_path / "new" / "audit.json").read_text(encoding="utf-8"))
    assert written.pop("metadata").keys() == audit["metadata"].keys()
    assert written == numbers
    assert (tmp_path / "new" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_has_every_row_and_every_reason(audit):
    page = (RESULTS / "report.md").read_text(encoding="utf-8")
    lines = [line.split(" | ") for line in page.splitlines()]
    for row in audit["networks"]:
        [cells] = [
            c
            for c in lines
            if c[0] == f"| {row['network']}" and c[2:4] == [f"{row['alpha']:g}", f"{row['published']:g}"]
            and c[1] == f"`{row['model']}`" and (row["reason"] or row.get("note", "")) == c[-1].removesuffix(" |")
        ][:1]  # fmt: skip
        assert cells[5] == f"{row['difference_percent']:+.1f}"
    assert "28.96 | +0.2 | 45 |" in page
    assert len(re.findall(r"^\| \([a-f]\) ", page, flags=re.MULTILINE)) == 6


def test_the_readme_says_how_many_rows_agree(audit):
    readme = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    number = [sum(r["status"] == status for r in audit["networks"]) for status in ("agrees", "explained", "open")]
    assert number[2] == 1
    assert f"{number[0]} of {len(audit['networks'])} agree within 1 %, {number[1]} differ for a reason" in readme


def test_metadata_says_unit_tool_and_versions(audit):
    assert audit["metadata"]["unit"] == "multiply-adds"
    assert "count_macs" in audit["metadata"]["tool"]
    assert re.fullmatch(r"\d+\.\d+.*", audit["metadata"]["torch_version"])
