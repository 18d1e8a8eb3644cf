"""What the terminal shows of texts that rich would take for its markup."""

import re
from pathlib import Path

import pytest
from rich.table import Table

import octvideo.cli
from octvideo.cli.terminal import live_bars, print_table, status

# A style, an end without a beginning (an error as markup), and a name of an emoji.
TEXT = "runs/[bold]a/[/b]/:cat:/octvideo[peers]"


def test_tables_show_texts_as_they_are(capsys):
    table = Table(title=f"of {TEXT}")
    table.add_column(f"header {TEXT}")
    table.add_row(f"cell {TEXT}")
    print_table(table, width=80)
    out = capsys.readouterr().out
    assert [f"{where} {TEXT}" in out for where in ("of", "header", "cell")] == [True] * 3


@pytest.mark.parametrize("stderr", [False, True])
def test_bars_show_texts_as_they_are(stderr, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with live_bars(stderr=stderr) as progress:
        progress.add_task(f"bar {TEXT}", total=1)
        progress.console.print(f"line {TEXT}")
    shown = capsys.readouterr()[stderr]
    assert f"bar {TEXT}" in shown
    assert f"line {TEXT}" in shown


def test_a_status_shows_its_text_as_it_is(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with status(f"exporting {TEXT}"):
        pass
    assert f"exporting {TEXT}" in capsys.readouterr().err


def test_no_command_makes_a_console_of_its_own():
    for path in Path(octvideo.cli.__file__).parent.glob("*.py"):
        if path.name != "terminal.py":
            assert not re.search(r"\b(Console|Progress|TextColumn)\(", path.read_text(encoding="utf-8")), path
