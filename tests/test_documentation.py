"""The examples in docstrings and in the README run."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import octvideo
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


def parse(line):
    """A command's options, by its own parser; of a sweep also those that it passes on."""
    _, name, *given = shlex.split(line)
    if name == "train":
        return training_parser().parse_args(given)
    if "--" in given:  # of sweep
        training_parser().parse_args(given[given.index("--") + 1 :])
        del given[given.index("--") :]
    command = importlib.import_module(f"octvideo.cli.{name}")
    if name in ("benchmark", "data"):
        return command.build_parser(given[0]).parse_args(given[1:])
    return command.build_parser().parse_args(given)


@pytest.mark.parametrize("line", commands())
def test_the_readmes_commands_exist(line):
    assert parse(line)


@pytest.mark.parametrize("line", [*commands(), "octvideo sweep --config my.yaml --"])
def test_a_command_with_another_option_would_be_found(line):
    with pytest.raises(ValueError, match="no_such_option"):
        parse(f"{line} --no_such_option 1")
