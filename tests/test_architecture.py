"""Rules of the whole package: which room may import which, what is public, and what the README promises."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "octvideo"

# Modules that every room may use; they know none.
COMMON = {"files"}
# Room -> rooms that it may import. Data knows no model; layers know nothing of videos.
ALLOWED = {
    "kernels": set(),
    "layers": {"kernels"},
    "convert": {"layers"},
    "models": {"layers", "convert"},
    "data": set(),
    "evaluation": set(),
    "analysis": {"layers", "convert", "models"},
    "runtime": {"kernels", "layers", "convert", "models"},
    "benchmarks": {"layers", "convert", "models", "data", "analysis", "runtime"},
    "training": {"layers", "models", "data", "evaluation"},
    "report": {"analysis", "evaluation"},
    "cli": {"layers", "models", "data", "evaluation", "analysis", "runtime", "benchmarks", "training", "report"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports should be absolute, but line {node.lineno} is relative"
            yield node.module or ""


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_know_only_the_rooms_below(room):
    found = set()
    for path in (PACKAGE / room).rglob("*.py"):
        found |= {name.split(".")[1] for name in imports(path) if name.startswith("octvideo.")}
    assert found - {room} <= ALLOWED[room] | COMMON


@pytest.mark.parametrize("name", COMMON)
def test_common_modules_know_no_room(name):
    assert not [name for name in imports(PACKAGE / f"{name}.py") if name.startswith("octvideo")]


def test_every_room_is_listed():
    rooms = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    assert rooms == set(ALLOWED)


@pytest.mark.parametrize("room", ["", *ALLOWED])
def test_public_names_exist_and_are_documented(room):
    module = importlib.import_module(f"octvideo.{room}".rstrip("."))
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    for name in set(module.__all__) - {"__version__"}:
        assert getattr(module, name) is not None
        if callable(getattr(module, name)) and not name.isupper():
            assert getattr(module, name).__doc__, name
