"""Install octvideo into .venv and run the main job on the built-in videos; once more goes on after an interrupt."""

import signal
import subprocess
import sys

from _venv import ROOT, install

if __name__ == "__main__":
    print("installing octvideo into .venv (the first time this downloads torch, a few GB)", flush=True)
    program = install() / "octvideo"
    with subprocess.Popen([program, "quickstart", *sys.argv[1:]], cwd=ROOT) as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command, which stops its runs
        sys.exit(process.wait())
