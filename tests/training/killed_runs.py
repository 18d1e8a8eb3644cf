"""Trains a network straight, and in processes that are killed at random moments until the last comes to the run's end.

    python killed_runs.py KILLS STEPS OUTPUT ARGUMENT...

runs `octvideo train --output OUTPUT/straight ARGUMENT...`, then the same with OUTPUT/killed and --resume, and kills it
(SIGKILL) KILLS times: after a random number of checkpoints, STEPS at most, and a random part of a second more. It prints
both runs' exit codes. The processes are forked from this one, which has imported everything.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from octvideo.cli import main


def start(arguments):
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        code = main(arguments)
    finally:
        os._exit(code)


def wait_for_checkpoints(path, number):
    """Return when the file has been replaced so often."""
    seen = set()
    while len(seen) <= number:
        if path.exists():
            seen.add(path.stat().st_mtime_ns)
        elif not seen:
            seen.add(0)
        time.sleep(0.0005)


def run(kills, steps, arguments, output):
    given = ["train", "--output", str(output), *arguments, "--resume"]
    draw = random.Random(kills)
    for _ in range(kills):
        process = start(given)
        wait_for_checkpoints(output / "checkpoints" / "last.ckpt", draw.randint(0, steps))
        time.sleep(draw.uniform(0, 0.1) if draw.random() < 0.8 else draw.uniform(0, 0.6))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"ended before it was killed, with code {os.waitstatus_to_exitcode(status)}")
    return os.waitstatus_to_exitcode(os.waitpid(start(given), 0)[1])


if __name__ == "__main__":
    import octvideo.cli.train  # noqa: F401 - before the fork

    kills, steps, output, *arguments = sys.argv[1:]
    straight = run(0, 0, arguments, Path(output) / "straight")
    print(straight, run(int(kills), int(steps), arguments, Path(output) / "killed"))
