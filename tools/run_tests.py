"""Install octvideo with its test tools into .venv and run the tests; arguments go to pytest."""

import subprocess
import sys

from _venv import ROOT, install

if __name__ == "__main__":
    print("installing octvideo into .venv (the first time this downloads torch, a few GB)", flush=True)
    sys.exit(subprocess.run([install("[dev]") / "python", "-m", "pytest", *sys.argv[1:]], cwd=ROOT).returncode)
