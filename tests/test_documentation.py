"""The examples in docstrings and in the README run."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import octvideo
from octvideo.cli.main import COMMANDS
from octvideo.cli.options import training_parser

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
MODULES = sorted(m.name for m in pkgutil.walk_packages(octvideo.__path__, "octvideo.") if "__main__" not in m.name)


def indented_blocks(text):
    return re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_the_readmes_python_runs():
    [block] = [b for b in indented_blocks(README) if "import torch" in b]
    names: dict = {}
    exec("\n".join(line[4:] for line in block.splitlines()), names)
    assert names["logits"].shape == (1, 400)
    assert names["pair"].high.shape == (1, 24, 8, 28, 28)
    assert names["pair"].low.shape == (1, 8, 8, 14, 14)


def commands():
    text = "".join(b for b in indented_blocks(README) if "octvideo " in b).replace("\\\n", " ")
    return [line.split("#")[0].strip() for line in text.splitlines() if line.strip().startswith("octvideo ")]


@pytest.mark.parametrize("line", commands())
def test_the_readmes_commands_exist(line):
    _, name, *given = shlex.split(line)
    assert name in COMMANDS
    if name == "train":
        assert training_parser().parse_args(given).data.train
