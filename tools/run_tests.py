"""Install octvideo with its test tools into .venv and run the tests, one process per core; arguments go to pytest."""

import os
import subprocess
import sys

from _venv import ROOT, install

if __name__ == "__main__":
    print("installing octvideo into .venv (the first time this downloads torch, a few GB)", flush=True)
    # Neighbouring tests stay in one process, with what their fixtures have made, until another one has none left.
    command = [str(install("[dev]") / "python"), "-m", "pytest", "-n", "auto", "--dist", "worksteal", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode)
