"""Make .venv beside pyproject.toml and install octvideo into it."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def install(extra: str = "") -> Path:
    """Return the environment's folder of programs, with octvideo and its `extra` installed."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"octvideo runs on Python 3.10 to 3.13; this is {sys.version.split()[0]}")
    folder = ROOT / ".venv"
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    if not (programs / "pip").exists() and not (programs / "pip.exe").exists():
        venv.create(folder, with_pip=True)
    subprocess.run([programs / "python", "-m", "pip", "install", "-q", "-e", f"{ROOT}{extra}"], check=True)
    return programs
